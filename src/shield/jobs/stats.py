"""The queue and the fleet in numbers, for the metrics: one statement over what is live.

It reads the partial indexes of live jobs and of waiting graph steps and the few rows of `workers`, so it costs what is live, not what
has ever been. Ages count from when a job was due, by the database's clock.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.jobs.model import Priority, QueueStats
from shield.settings import JobSettings

_DUE = "status = 'pending' AND available_at <= now()"


def _age(column: str, condition: str) -> str:
    return f"coalesce(extract(epoch FROM now() - min({column}) FILTER (WHERE {condition})), 0)::float8"


_AGES = ", ".join(f"{_age('available_at', f'{_DUE} AND priority = {priority.value!r}')} AS {priority}" for priority in Priority)
_STATS = text(f"""
    WITH queue AS (
      SELECT count(*) FILTER (WHERE status = 'pending') AS pending,
             count(*) FILTER (WHERE status = 'processing' AND NOT parked) AS processing, count(*) FILTER (WHERE parked) AS parked,
             {_AGES}, {_age("available_at", f"{_DUE} AND published_at IS NULL")} AS unpublished
        FROM jobs WHERE status IN ('pending', 'processing') AND runner = :runner),
    graph AS (SELECT count(*) AS steps, {_age("created_at", "true")} AS oldest_step FROM graph_tasks WHERE status = 'pending'),
    fleet AS (
      SELECT coalesce(jsonb_agg(jsonb_build_array(to_jsonb(offers), slots)), '[]') AS workers FROM workers
       WHERE runner = :runner AND seen_at > now() - CAST(:lease AS interval))
    SELECT * FROM queue, graph, fleet""")  # noqa: S608 - our own words


async def stats(connection: AsyncConnection, runner: str, settings: JobSettings) -> QueueStats:
    """The queue of `runner` now."""
    row = (await connection.execute(_STATS, {"runner": runner, "lease": settings.lease})).mappings().one()
    return QueueStats(
        pending=row["pending"],
        processing=row["processing"],
        parked=row["parked"],
        oldest={priority: row[priority] for priority in Priority},
        unpublished=row["unpublished"],
        graph_waiting=row["steps"],
        graph_oldest=row["oldest_step"],
        workers=Counter(frozenset(offers) for offers, _ in row["workers"]),
        slots=sum(slots for _, slots in row["workers"]),
    )
