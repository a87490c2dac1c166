"""Builders, and a hand on the database's clock: instead of waiting, a row is made older."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.jobs.model import JobId, JobKind, JobRequest, WorkerId
from shield.settings import JobSettings

KB = UUID(int=7)
ME = WorkerId("me")
OTHER = WorkerId("other")


def a_request(**changes: Any) -> JobRequest:
    """A crawl by `ada`, unlike every other one."""
    values: dict[str, Any] = {
        "kind": JobKind.CRAWL,
        "principal": "ada",
        "knowledge_base_id": KB,
        "knowledge_base": "default",
        "spec": {"type": "crawl", "url": "https://example.org/"},
        "request_hash": uuid4().hex,
    }
    return JobRequest(**{**values, **changes})


def job_settings(**changes: Any) -> JobSettings:
    """The decided test values."""
    values: dict[str, Any] = {
        "lease": 2,
        "heartbeat": 0.6,
        "relay": 0.1,
        "backoff_min": 0.05,
        "backoff_max": 0.2,
        "poll_after": 0.1,
        "drain": 0.5,
    }
    return JobSettings(**{**values, **changes})


class Rows:
    """Direct access to the tables, for tests."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self, statement: str, **values: Any) -> list[Any]:
        """Run one statement; its rows, if it has any."""
        async with self._engine.begin() as connection:
            result = await connection.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    async def value(self, column: str, job_id: JobId) -> Any:
        """One column of a job."""
        return (await self.run(f"SELECT {column} FROM jobs WHERE id = :id", id=job_id))[0][0]

    async def shift(self, column: str, job_id: JobId, by: timedelta) -> None:
        """Set a time of a job to now plus `by`."""
        await self.run(f"UPDATE jobs SET {column} = now() + CAST(:by AS interval) WHERE id = :id", id=job_id, by=by)

    async def lapse(self, job_id: JobId) -> None:
        """Let the job's lease have run out."""
        await self.shift("lease_until", job_id, timedelta(seconds=-1))

    async def make_due(self, job_id: JobId) -> None:
        """End the job's pause."""
        await self.shift("available_at", job_id, timedelta(seconds=-1))

    async def make_late(self, job_id: JobId) -> None:
        """Let the job's deadline have passed."""
        await self.shift("deadline_at", job_id, timedelta(seconds=-1))

    async def upload(self, *, principal: str = "ada", stored: bool = True, ttl: float = 3600) -> UUID:
        """An upload."""
        rows = await self.run(
            "INSERT INTO uploads (principal, name, stored, expires_at) VALUES (:principal, 'a.md', :stored, now() + CAST(:ttl AS interval)) RETURNING id",
            principal=principal,
            stored=stored,
            ttl=timedelta(seconds=ttl),
        )
        return UUID(str(rows[0][0]))

    async def graph_task(self, job_id: JobId) -> int:
        """A graph step that the job waits for."""
        rows = await self.run(
            "INSERT INTO graph_tasks (knowledge_base_id, operation, document_id, graph_key, job_id) VALUES (:kb, 'add', :kb, 'k', :job) RETURNING id",
            kb=KB,
            job=job_id,
        )
        return int(rows[0][0])
