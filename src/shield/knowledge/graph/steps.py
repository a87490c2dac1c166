"""Which graph steps of a job are still waiting, and which were given up."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import graph_tasks


@dataclass(frozen=True)
class FailedStep:
    """A document that is stored but could not be put into the graph."""

    document_id: UUID
    code: str | None
    message: str | None


@dataclass(frozen=True)
class Steps:
    """The graph steps of one job."""

    pending: int
    failed: tuple[FailedStep, ...]


async def steps_of_job(engine: AsyncEngine, job_id: UUID) -> Steps:
    """Count what waits and name what failed."""
    mine = graph_tasks.c.job_id == job_id
    with database_errors():
        async with engine.connect() as connection:
            pending = await connection.execute(select(func.count()).select_from(graph_tasks).where(mine, graph_tasks.c.status == "pending"))
            failed = await connection.execute(
                select(graph_tasks.c.document_id, graph_tasks.c.code, graph_tasks.c.message)
                .where(mine, graph_tasks.c.status == "failed")
                .order_by(graph_tasks.c.id)
            )
            return Steps(pending.scalar_one(), tuple(FailedStep(*row) for row in failed))
