"""Who works: a row a worker, so that everyone knows how many slots there are and which needs can be met.

A worker writes its row when it starts, again with every heartbeat, and removes it when it stops. One that was not seen for a
lease counts as dead; the database's clock decides. Nothing depends on a row being right for long: the relay sizes what it
publishes by it, and intake says early that nobody here could run a job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.jobs.model import FLEET, WorkerId
from shield.settings import JobSettings

_ANNOUNCE = text("""
    INSERT INTO workers (id, runner, slots, offers, version) VALUES (:id, :runner, :slots, CAST(:offers AS text[]), :version)
    ON CONFLICT (id) DO UPDATE SET slots = excluded.slots, offers = excluded.offers, seen_at = now()""")
_LEAVE = text("DELETE FROM workers WHERE id = :id")
_LIVE = text("""
    SELECT id, runner, slots, offers, version FROM workers
     WHERE runner = :runner AND seen_at > now() - CAST(:lease AS interval) ORDER BY started_at, id""")
_FORGET = text("DELETE FROM workers WHERE seen_at < now() - 20 * CAST(:lease AS interval)")


@dataclass(frozen=True)
class WorkerInfo:
    """A worker as the others see it."""

    id: WorkerId
    slots: int
    """How many jobs it runs at once; 0 while it begins none."""
    offers: frozenset[str]
    """The needs it can meet."""
    version: str
    runner: str = FLEET


class Workers:
    """The workers of an installation."""

    def __init__(self, engine: AsyncEngine, settings: JobSettings) -> None:
        self._engine = engine
        self._lease = settings.lease

    async def announce(self, worker: WorkerInfo) -> None:
        """Say that this worker lives, now."""
        values = {"id": worker.id, "runner": worker.runner, "slots": worker.slots, "version": worker.version}
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(_ANNOUNCE, {**values, "offers": sorted(worker.offers)})

    async def leave(self, worker_id: WorkerId) -> None:
        """Say that it is gone."""
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(_LEAVE, {"id": worker_id})

    async def live(self, runner: str = FLEET) -> Sequence[WorkerInfo]:
        """The workers seen within a lease."""
        with database_errors():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(_LIVE, {"runner": runner, "lease": self._lease})).mappings()
                return [WorkerInfo(**{**row, "id": WorkerId(row["id"]), "offers": frozenset(row["offers"])}) for row in rows]

    async def count(self, runner: str = FLEET) -> int:
        """How many there are."""
        return len(await self.live(runner))

    async def slots(self, runner: str = FLEET) -> int:
        """How many jobs they run at once, all together."""
        return sum(worker.slots for worker in await self.live(runner))

    async def offers(self, runner: str = FLEET) -> frozenset[str]:
        """The needs that at least one of them can meet."""
        return frozenset().union(*(worker.offers for worker in await self.live(runner)))

    async def forget_dead(self) -> int:
        """Remove the rows of workers that were killed long ago; returns how many."""
        with database_errors():
            async with self._engine.begin() as connection:
                return (await connection.execute(_FORGET, {"lease": self._lease})).rowcount
