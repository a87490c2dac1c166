"""Sweeps: what ends a job when no worker does.

Every live job reaches an end state even if nothing ever runs it: by its deadline, by its crash budget, or by a cancel that
met no worker. Deadlines, cancels and retention hold for every runner; budgets and parked jobs only for the runner that is
swept, because a pod's retries are Kubernetes'. A row that someone has locked is left to the next sweep.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.errors import DeadlineExceeded, JobCancelled, RetriesExhausted, ShieldError
from shield.jobs.claims import end
from shield.jobs.model import Job, Status, Swept
from shield.jobs.rows import COLUMNS, job_of
from shield.settings import JobSettings

_BATCH = 200  # rows a rule and sweep, so that a sweep after a long outage stays a short transaction

_ONE_SWEEPER = text("SELECT pg_try_advisory_xact_lock(hashtextextended('shield.sweep', 0))")
_LIVE = "status IN ('pending', 'processing')"
_LAPSED = "(status = 'processing' AND NOT parked AND lease_until < now())"
_IDLE = f"(status = 'pending' OR parked OR {_LAPSED})"


def _due(condition: str) -> str:
    return f"SELECT {COLUMNS}, {_LAPSED} AS lapsed FROM jobs WHERE {_LIVE} AND {condition} ORDER BY seq LIMIT {_BATCH} FOR NO KEY UPDATE SKIP LOCKED"  # noqa: S608 - ours


_CANCELLED = text(_due(f"cancel_requested_at IS NOT NULL AND {_IDLE}"))
_LATE = text(_due("deadline_at <= now()"))
_EXHAUSTED = text(
    _due(
        "runner = :runner AND (errors >= max_errors OR (status = 'pending' AND crashes >= max_crashes)"
        f" OR ({_LAPSED} AND crashes + 1 >= max_crashes))"
    )
)
# A parked job goes on once none of its graph steps is waiting any more, however they ended.
_UNPARK = text("""
    UPDATE jobs SET status = 'pending', parked = false, waiting_for = NULL, available_at = now(), published_at = NULL, updated_at = now()
     WHERE id IN (SELECT id FROM jobs WHERE status = 'processing' AND parked AND runner = :runner
                     AND NOT EXISTS (SELECT 1 FROM graph_tasks g WHERE g.job_id = jobs.id AND g.status = 'pending')
                   FOR NO KEY UPDATE SKIP LOCKED)""")
_RETIRE = text(f"""
    DELETE FROM jobs WHERE id IN (
      SELECT id FROM jobs WHERE finished_at < now() - CAST(:retention AS interval)
         AND (idempotency_key IS NULL OR finished_at < now() - CAST(:keep AS interval))
       ORDER BY finished_at LIMIT {_BATCH} FOR UPDATE SKIP LOCKED)""")  # noqa: S608
_ABANDON = text(
    "UPDATE jobs SET lease_until = now() WHERE status = 'processing' AND NOT parked AND runner = :runner AND lease_until > now()"
)


async def sweep(connection: AsyncConnection, runner: str, settings: JobSettings) -> Swept | None:
    """Apply every rule once; None if another process is sweeping at this moment."""
    if not (await connection.execute(_ONE_SWEEPER)).scalar_one():
        return None
    cancelled = await _end_all(connection, _CANCELLED, Status.CANCELLED, lambda _: JobCancelled())
    expired = await _end_all(connection, _LATE, Status.FAILED, deadline_exceeded)
    exhausted = await _end_all(connection, _EXHAUSTED, Status.FAILED, _given_up, runner=runner)
    removed = await connection.execute(_RETIRE, {"retention": settings.retention, "keep": settings.idempotency_keep})
    ended = (*cancelled, *expired, *exhausted)
    return Swept(
        cancelled=len(cancelled),
        expired=len(expired),
        exhausted=len(exhausted),
        unparked=await unpark(connection, runner),
        removed=removed.rowcount,
        lapsed=sum(lapsed for _, lapsed in ended),
        ended=tuple(job for job, _ in ended),
    )


async def unpark(connection: AsyncConnection, runner: str) -> int:
    """Put parked jobs whose graph steps are through back into the queue; returns how many."""
    return (await connection.execute(_UNPARK, {"runner": runner})).rowcount


async def abandon_leases(connection: AsyncConnection, runner: str) -> int:
    """Let all leases lapse at once, for one who knows that no worker lives: the new owner of a data directory."""
    return (await connection.execute(_ABANDON, {"runner": runner})).rowcount


async def _end_all(
    connection: AsyncConnection, due: TextClause, status: Status, why: Callable[[Job], ShieldError], **values: str
) -> list[tuple[Job, bool]]:
    """End what is due; each job, and whether it was running under a lease that had run out."""
    ended = []
    for row in (await connection.execute(due, values)).mappings().all():
        job = job_of(row)
        crashed = int(row["lapsed"] and status is Status.FAILED)
        job = dataclasses.replace(job, crashes=job.crashes + crashed)
        ended.append((await end(connection, job.id, status, error=why(job), crashed=crashed), row["lapsed"]))
    return ended


def deadline_exceeded(job: Job) -> DeadlineExceeded:
    """The error of a job past its deadline; names what it waited for, or what it was doing."""
    if job.waiting_for:
        why = f"it waited for {job.waiting_for}"
    elif job.status is Status.PENDING:
        why = "it waited for a free worker"
    else:
        why = f"it was in stage {job.stage}"
    last = f"; its last error was {job.error_code}: {job.error_message}" if job.error_code else "."
    return DeadlineExceeded(f"The job passed its deadline; {why}{last}")


def _given_up(job: Job) -> RetriesExhausted:
    return RetriesExhausted(f"The job was given up: it took down its worker {job.crashes} times, last in stage {job.stage}.")
