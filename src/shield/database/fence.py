"""The fence of a job, checked inside another component's transaction.

A worker that was paused past its lease may still hold open connections. Before a transaction of its makes anything
visible it locks the job's row in share mode: if the fence is outdated or the job has ended nothing is written; if it is
current nobody can take the job over until the transaction ends. Call it last, because a heartbeat waits for that lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.database.tables import jobs
from shield.errors import LeaseLost


@dataclass(frozen=True)
class JobFence:
    """Which run of which job writes."""

    job_id: UUID
    fence: int


async def require_fence(connection: AsyncConnection, job_id: UUID, fence: int) -> None:
    """Go on only while this run owns its job; holds until the transaction ends.

    Raises:
        LeaseLost: another run took over, or the job has ended, was handed back or parked.
    """
    held = (jobs.c.id == job_id, jobs.c.fence == fence, jobs.c.status == "processing", ~jobs.c.parked)
    statement = select(jobs.c.id).where(*held).with_for_update(read=True)
    if (await connection.execute(statement)).first() is None:
        raise LeaseLost
