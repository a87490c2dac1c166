"""Claims: how one worker, and only one, runs a job, and how it lets go of it.

A claim writes a lease into the row (`lease_until = now() + lease`, the database's clock decides) and raises the fence by
one. Every later write of that worker names its fence and locks the row first; an outdated fence, an ended or a parked job
refuses it with `LeaseLost`, and nothing is changed. Taking over a lapsed lease counts as a crash of the job; errors have a
budget of their own; handing a job back costs neither. Statements that choose a job skip rows that someone has locked, so a
paused worker holds up its own job only.

All functions work in the caller's transaction.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.errors import JobCancelled, LeaseLost, RetriesExhausted, ShieldError
from shield.jobs.model import WEBHOOK, Beat, Claim, DocumentOutcome, Job, JobId, JobKind, Progress, Stage, Status, WorkerId
from shield.jobs.rows import COLUMNS, OUTCOME_COLUMNS, job_of
from shield.settings import JobSettings

STARVING_EVERY = 10
"""One of so many starts goes to a job that waits behind a higher priority of its own principal."""

_CANDIDATES = 8  # tried in one look for work, in case others take the first ones at the same moment

STARTABLE = """
    cancel_requested_at IS NULL AND deadline_at > now() AND errors < max_errors
    AND ((status = 'pending' AND available_at <= now() AND crashes < max_crashes)
      OR (status = 'processing' AND NOT parked AND lease_until < now() AND crashes + 1 < max_crashes))"""
"""Whether a job may be begun now. The crash that a lapsed lease means is counted by the claim itself."""

# What this worker may take.
_CLAIMABLE = f"""
    runner = :runner AND needs <@ CAST(:offers AS text[]) AND kind = ANY(CAST(:kinds AS text[])) AND {STARTABLE}"""

_CLAIM = text(f"""
    UPDATE jobs SET status = 'processing', fence = fence + 1, worker = :worker, lease_until = now() + CAST(:lease AS interval),
           crashes = crashes + CASE WHEN status = 'processing' THEN 1 ELSE 0 END, turn = nextval('jobs_turn'),
           started_at = coalesce(started_at, now()), published_at = NULL, waiting_for = NULL, updated_at = now()
      FROM (SELECT id AS free, status = 'processing' AS lapsed FROM jobs WHERE id = :id AND {_CLAIMABLE} FOR NO KEY UPDATE SKIP LOCKED) AS it
     WHERE id = free RETURNING {COLUMNS}, lapsed""")  # noqa: S608 - our own names

# Principals in turn (the one served longest ago first), then priority, then age. On a starving start, first the oldest job
# that stands behind a higher priority of its principal. `best` and `last` are per principal.
_CHOOSE = text(f"""
    WITH eligible AS (
      SELECT id, principal, seq, CASE priority WHEN 'high' THEN 0 WHEN 'normal' THEN 1 ELSE 2 END AS rank
        FROM jobs WHERE status IN ('pending', 'processing') AND {_CLAIMABLE}
         AND id <> ALL(CAST(:exclude AS uuid[]))),
    ranked AS (SELECT *, min(rank) OVER (PARTITION BY principal) AS best FROM eligible),
    principals AS (
      SELECT p.principal, (SELECT max(turn) FROM jobs j WHERE j.principal = p.principal AND turn IS NOT NULL) AS last,
             (SELECT count(*) FROM jobs j WHERE j.principal = p.principal AND j.runner = :runner
                 AND j.status = 'processing' AND NOT j.parked AND j.lease_until >= now()) AS running
        FROM (SELECT DISTINCT principal FROM eligible) AS p)
    SELECT r.id FROM ranked r JOIN principals p USING (principal)
     WHERE p.running < :max_running
     ORDER BY CASE WHEN (SELECT last_value FROM jobs_turn) % :every = 0 AND r.rank > r.best THEN r.seq END NULLS LAST,
              p.last NULLS FIRST, r.rank, r.seq
     LIMIT :candidates""")  # noqa: S608

# One process chooses at a time, so the order and the limit per principal are exact. A chooser that is paused in the middle
# loses its transaction after `:patience` milliseconds instead of keeping everyone from work.
_ONE_CHOOSER = text(
    "SELECT set_config('idle_in_transaction_session_timeout', :patience, true), pg_try_advisory_xact_lock(hashtextextended('shield.claim', 0)) AS mine"
)

_OFFER_AGAIN = text("""
    UPDATE jobs SET published_at = now() - CAST(:ago AS interval)
     WHERE id = (SELECT id FROM jobs WHERE id = :id AND published_at IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED)""")

_LOCK_HELD = text(
    f"SELECT {COLUMNS}, max_errors FROM jobs WHERE id = :id AND fence = :fence AND status = 'processing' AND NOT parked FOR NO KEY UPDATE"  # noqa: S608
)
_BEAT = text("""
    UPDATE jobs SET lease_until = now() + CAST(:lease AS interval)
     WHERE id = :id AND fence = :fence AND status = 'processing' AND NOT parked
    RETURNING cancel_requested_at IS NOT NULL AS cancel, deadline_at <= now() AS late""")
_PROGRESS = text("""
    UPDATE jobs SET progress = CAST(:progress AS jsonb), stage = :stage, updated_at = now()
     WHERE id = :id AND fence = :fence AND status = 'processing' AND NOT parked RETURNING id""")
_OUTCOME = text(f"""
    INSERT INTO job_outcomes (job_id, {OUTCOME_COLUMNS})
    SELECT id, :number, :source, :status, :counted, CAST(:document_id AS uuid), CAST(:revision AS bigint), :chunks, :bytes, :code, :message
      FROM jobs WHERE id = :id AND fence = :fence AND status = 'processing' AND NOT parked FOR SHARE
    ON CONFLICT (job_id, number) DO UPDATE SET ({OUTCOME_COLUMNS}, at) =
      ({", ".join(f"excluded.{name.strip()}" for name in OUTCOME_COLUMNS.split(","))}, now())
    RETURNING number""")  # noqa: S608
_END = text(f"""
    UPDATE jobs SET status = :status, outcome = :outcome, stage = CASE WHEN :status = 'completed' THEN 'done' ELSE stage END,
           error_code = :code, error_message = :message, waiting_for = NULL, finished_at = now(), updated_at = now(), payload = NULL,
           parked = false, lease_until = NULL, worker = NULL, published_at = NULL, crashes = crashes + :crashed,
           progress = CASE WHEN :status = 'completed' THEN progress || '{{"percentage": 100}}' ELSE progress END
     WHERE id = :id RETURNING {COLUMNS}""")  # noqa: S608
_ERASE_BODIES = text("UPDATE crawl_pages SET body = NULL WHERE job_id = :id AND body IS NOT NULL")
_TELL = text("INSERT INTO webhook_deliveries (job_id, url) SELECT id, spec->>'webhook' FROM jobs WHERE id = :id ON CONFLICT DO NOTHING")
_PUT_BACK = text(f"""
    UPDATE jobs SET status = 'pending', lease_until = NULL, worker = NULL, published_at = NULL, updated_at = now(), waiting_for = :waiting_for,
           errors = errors + :spent, error_code = coalesce(:code, error_code), error_message = coalesce(:message, error_message),
           available_at = now() + greatest(CAST(:after AS interval), random() * CAST(:jitter AS interval))
     WHERE id = :id RETURNING {COLUMNS}""")  # noqa: S608
_PARK = text(f"""
    UPDATE jobs SET parked = true, stage = :stage, waiting_for = :stage, lease_until = NULL, worker = NULL, updated_at = now()
     WHERE id = :id RETURNING {COLUMNS}""")  # noqa: S608
_NOTHING = timedelta(0)
MAX_SOURCE = 4096
"""Longest source that an outcome shows, in characters."""


async def claim(
    connection: AsyncConnection,
    job_id: JobId,
    *,
    worker: WorkerId,
    offers: frozenset[str],
    runner: str,
    settings: JobSettings,
    kinds: Iterable[JobKind] = tuple(JobKind),
) -> Claim | None:
    """Take this job for one lease; None if it is not to be had (held, ended, not yet due, past a budget, not for this worker)."""
    values = {"id": job_id, "worker": worker, "offers": sorted(offers), "runner": runner, "kinds": sorted(kinds), "lease": settings.lease}
    result = await connection.execute(_CLAIM, values)
    row = result.mappings().first()
    if row is None:
        return None
    job = job_of(row)
    return Claim(job=job, fence=job.fence, worker=worker, resumed=job.fence > 1, lapsed=row["lapsed"])


async def claim_next(
    connection: AsyncConnection,
    *,
    worker: WorkerId,
    offers: frozenset[str],
    runner: str,
    settings: JobSettings,
    kinds: Iterable[JobKind],
    exclude: Collection[JobId],
) -> Claim | None:
    """Take the job whose turn it is; None if there is none, or another process is choosing at this moment."""
    if not await only_chooser(connection, settings):
        return None
    candidates = await connection.execute(
        _CHOOSE,
        {
            "offers": sorted(offers),
            "runner": runner,
            "kinds": sorted(kinds),
            "exclude": list(exclude),
            "max_running": settings.max_running_principal,
            "every": STARVING_EVERY,
            "candidates": _CANDIDATES,
        },
    )
    for job_id in candidates.scalars().all():
        taken = await claim(connection, job_id, worker=worker, offers=offers, runner=runner, settings=settings, kinds=kinds)
        if taken is not None:
            return taken
    return None


async def offer_again(connection: AsyncConnection, job_id: JobId, settings: JobSettings) -> None:
    """A hint of this job was of no use to who took it: let the relay publish another after a look's pause."""
    await connection.execute(_OFFER_AGAIN, {"id": job_id, "ago": settings.lease - settings.relay})


async def only_chooser(connection: AsyncConnection, settings: JobSettings) -> bool:
    """Become the one who chooses until the transaction ends; False if another process is choosing at this moment."""
    patience = str(int(settings.heartbeat.total_seconds() * 1000))
    return bool((await connection.execute(_ONE_CHOOSER, {"patience": patience})).one().mine)


async def heartbeat(connection: AsyncConnection, held: Claim, settings: JobSettings) -> Beat:
    """Renew the lease, also one that lapsed while nobody took the job over."""
    row = (await connection.execute(_BEAT, {"id": held.job.id, "fence": held.fence, "lease": settings.lease})).first()
    return Beat(ok=False) if row is None else Beat(ok=True, cancel_requested=row.cancel, deadline_passed=row.late)


async def save_progress(connection: AsyncConnection, held: Claim, progress: Progress, stage: Stage) -> None:
    """Write where the job stands."""
    await _one(connection, _PROGRESS, held, progress=json.dumps(dataclasses.asdict(progress)), stage=stage)


async def record_outcome(connection: AsyncConnection, held: Claim, outcome: DocumentOutcome) -> None:
    """Write what became of one page or document; a later word on the same number replaces the earlier one."""
    texts = {"source": storable(outcome.source, MAX_SOURCE), "message": storable(outcome.message)}
    await _one(connection, _OUTCOME, held, **{**dataclasses.asdict(outcome), **texts})


async def finish(connection: AsyncConnection, held: Claim, status: Status, *, outcome: str | None, error: ShieldError | None) -> Job:
    """Write the end state."""
    await lock_held(connection, held)
    return await end(connection, held.job.id, status, outcome=outcome, error=error)


async def fail_transient(connection: AsyncConnection, held: Claim, error: ShieldError, settings: JobSettings) -> Job:
    """Spend one error: back to the queue after a pause (full jitter), or failed when that was the last."""
    job, max_errors = await lock_held(connection, held)
    if job.cancel_requested_at is not None:
        return await end(connection, job.id, Status.CANCELLED, error=JobCancelled())
    if job.errors + 1 >= max_errors:
        gave_up = RetriesExhausted(f"The job was given up after {job.errors + 1} errors; the last was {error.code}: {error.message}")
        return await end(connection, job.id, Status.FAILED, error=gave_up)
    jitter = min(settings.backoff_max, settings.backoff_min * 2 ** min(job.errors + 1, 30))
    after = timedelta(seconds=error.retry_after or 0)
    return await _put_back(connection, job.id, spent=1, code=error.code, message=storable(error.message), after=after, jitter=jitter)


async def hand_back(connection: AsyncConnection, held: Claim, waiting_for: str | None, after: timedelta) -> Job:
    """Back to the queue, nothing spent; due again after `after`."""
    job, _ = await lock_held(connection, held)
    if job.cancel_requested_at is not None:
        return await end(connection, job.id, Status.CANCELLED, error=JobCancelled())
    return await _put_back(connection, job.id, waiting_for=waiting_for, after=after)


async def park(connection: AsyncConnection, held: Claim, stage: Stage) -> Job:
    """Let the job wait for its graph steps without a lease or a slot; its claim is outdated from now on."""
    job, _ = await lock_held(connection, held)
    if job.cancel_requested_at is not None:
        return await end(connection, job.id, Status.CANCELLED, error=JobCancelled())
    row = (await connection.execute(_PARK, {"id": job.id, "stage": stage})).mappings()
    return job_of(row.one())


async def lock_held(connection: AsyncConnection, held: Claim) -> tuple[Job, int]:
    """The claim's job as it stands, locked until the transaction ends, and its budget of errors.

    Raises:
        LeaseLost: the claim is outdated.
    """
    row = (await connection.execute(_LOCK_HELD, {"id": held.job.id, "fence": held.fence})).mappings().first()
    if row is None:
        raise LeaseLost
    return job_of(row), row["max_errors"]


async def end(
    connection: AsyncConnection,
    job_id: JobId,
    status: Status,
    *,
    outcome: str | None = None,
    error: ShieldError | None = None,
    crashed: int = 0,
) -> Job:
    """Write an end state into a row the caller has locked; what people sent for it is erased in the same transaction."""
    values = {"id": job_id, "status": status, "outcome": outcome, "crashed": crashed, "code": error.code if error else None}
    row = (await connection.execute(_END, {**values, "message": storable(error.message) if error else None})).mappings()
    await connection.execute(_ERASE_BODIES, {"id": job_id})
    ended = job_of(row.one())
    if WEBHOOK in ended.spec:
        await connection.execute(_TELL, {"id": job_id})
    return ended


def storable(text: str | None, limit: int = 2000) -> str | None:
    """`text` as PostgreSQL can hold it: hostile pages get NULs and lone surrogates into messages and names."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")[:limit]


async def _put_back(
    connection: AsyncConnection,
    job_id: JobId,
    *,
    spent: int = 0,
    waiting_for: str | None = None,
    code: str | None = None,
    message: str | None = None,
    after: timedelta = _NOTHING,
    jitter: timedelta = _NOTHING,
) -> Job:
    values = {"id": job_id, "spent": spent, "waiting_for": waiting_for, "code": code, "message": message, "after": after, "jitter": jitter}
    return job_of((await connection.execute(_PUT_BACK, values)).mappings().one())


async def _one(connection: AsyncConnection, statement: Any, held: Claim, **values: object) -> None:
    """Run a fenced statement that says what it wrote; it wrote nothing if the fence is outdated."""
    if (await connection.execute(statement, {"id": held.job.id, "fence": held.fence, **values})).first() is None:
        raise LeaseLost
