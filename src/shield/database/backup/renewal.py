"""After a restore: nobody who worked for the old database can write into the new one, and what was under way begins again.

Between the backup and now the old system may have gone on, and its workers may reach the new database by the same name. A claim that
they hold has a fence of a job, a graph process an epoch, a half-written document a revision; so all three leap far beyond whatever the
old system can have reached, and beyond what stood in this database before. Leases are given up without counting a crash, and a job's
deadline moves by the time that the backup slept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

LEAP = 1_000_000
"""How far fences, epochs and revisions leap: more than a job, graph or document reaches in its life."""

_FLOORS = {
    "fence": "SELECT coalesce(max(fence), 0) FROM jobs",
    "epoch": "SELECT coalesce(max(epoch), 0) FROM kb_writer",
    "revision": "SELECT coalesce(max(next_revision), 0) FROM documents",
}
_RENEW = (
    """UPDATE jobs SET fence = greatest(fence, :fence) + :leap, worker = NULL, lease_until = NULL, published_at = NULL,
              status = CASE WHEN status = 'processing' AND NOT parked THEN 'pending' ELSE status END,
              deadline_at = deadline_at + greatest(now() - CAST(:created AS timestamptz), interval '0')
        WHERE status IN ('pending', 'processing')""",
    # A writer that held its graph at the moment of the backup was cut off: the next one repairs what it left half done.
    """UPDATE kb_writer SET epoch = greatest(epoch, :epoch) + :leap, holder = NULL,
              lease_until = CASE WHEN lease_until IS NULL THEN NULL ELSE to_timestamp(0) END""",
    "UPDATE documents SET next_revision = greatest(next_revision, :revision) + :leap",
    "UPDATE deletion_proofs SET next_revision = greatest(next_revision, :revision) + :leap",
    "UPDATE webhook_deliveries SET lease_until = NULL WHERE lease_until IS NOT NULL",
    "DELETE FROM workers",
)


@dataclass(frozen=True)
class Floors:
    """How far a database had come."""

    fence: int = 0
    epoch: int = 0
    revision: int = 0


async def floors(connection: AsyncConnection) -> Floors:
    """How far this database has come; for one with tables."""
    values = {name: (await connection.execute(sa.text(statement))).scalar_one() for name, statement in _FLOORS.items()}
    return Floors(**values)


async def renew(connection: AsyncConnection, created: datetime, before: Floors) -> None:
    """Make a restored database a new one, inside the transaction that restores it and at the newest schema."""
    values = {"leap": LEAP, "created": created, "fence": before.fence, "epoch": before.epoch, "revision": before.revision}
    for statement in _RENEW:
        text = sa.text(statement)
        await connection.execute(text, {name: value for name, value in values.items() if f":{name}" in statement})
