"""The rows of IngestJobs, asked for many at once: by the operator, which knows them by uid.

A row of runner `ingestjob:<uid>` is run by the pods of that IngestJob and by nobody else. Each function is one transaction's work and
reads no spec, so a batch of a thousand is small; the index `ix_jobs_runner` holds the rows of pods only.

All functions work in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.errors import JobCancelled
from shield.jobs.model import FLEET, WEBHOOK, Job, JobId, Progress, Stage, Status
from shield.jobs.rows import COLUMNS, job_of, progress_of

_PREFIX = "ingestjob:"
_LIVE = "status IN ('pending', 'processing')"
_PODS = f"runner <> '{FLEET}'"  # said in every statement, because the index is of these rows

# A uid names one row; after its key was forgotten there may be a second one, and then the newest counts.
_ROWS = text(f"""
    SELECT DISTINCT ON (runner) runner, id, status, outcome, error_code, stage, progress, errors, crashes, started_at, updated_at
      FROM jobs WHERE runner = ANY(CAST(:runners AS text[])) AND {_PODS} ORDER BY runner, seq DESC""")  # noqa: S608 - our own names
_ACTIVE = text(f"""
    SELECT DISTINCT runner FROM jobs WHERE {_LIVE} AND {_PODS} AND starts_with(runner, '{_PREFIX}') AND runner > :after
       AND (CAST(:principals AS text[]) IS NULL OR principal = ANY(CAST(:principals AS text[]))) ORDER BY runner LIMIT :limit""")  # noqa: S608
_OF = text(f"SELECT {COLUMNS} FROM jobs WHERE runner = :runner AND {_PODS} AND principal = :principal ORDER BY seq DESC LIMIT 1")  # noqa: S608
# Rows are locked in one order, so two batches never wait for each other in a circle. One that a pod holds is asked to stop.
_CANCEL = text(f"""
    WITH it AS (
      SELECT id AS live, status = 'processing' AND NOT parked AND lease_until >= now() AS held FROM jobs
       WHERE runner = ANY(CAST(:runners AS text[])) AND {_PODS} AND {_LIVE} ORDER BY id FOR NO KEY UPDATE)
    UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, now()), updated_at = now(),
           status = CASE WHEN held THEN status ELSE 'cancelled' END, finished_at = CASE WHEN held THEN NULL ELSE now() END,
           parked = parked AND held, lease_until = CASE WHEN held THEN lease_until END, worker = CASE WHEN held THEN worker END,
           payload = CASE WHEN held THEN payload END, waiting_for = CASE WHEN held THEN waiting_for END,
           error_code = CASE WHEN held THEN error_code ELSE :code END, error_message = CASE WHEN held THEN error_message ELSE :message END
      FROM it WHERE id = live RETURNING id, held, spec ? '{WEBHOOK}' AS told""")  # noqa: S608
_ERASE_BODIES = text("UPDATE crawl_pages SET body = NULL WHERE job_id = ANY(CAST(:ids AS uuid[])) AND body IS NOT NULL")
_TELL = text(f"""
    INSERT INTO webhook_deliveries (job_id, url) SELECT id, spec->>'{WEBHOOK}' FROM jobs WHERE id = ANY(CAST(:ids AS uuid[]))
    ON CONFLICT DO NOTHING""")  # noqa: S608


def runner_of(uid: str) -> str:
    """Who alone may run the row of this IngestJob."""
    return _PREFIX + uid


@dataclass(frozen=True)
class PodRow:
    """What the operator shows of a row."""

    uid: str
    id: JobId
    status: Status
    outcome: str | None
    error_code: str | None
    stage: Stage
    progress: Progress
    attempts: int
    updated_at: datetime


async def rows(connection: AsyncConnection, uids: Sequence[str]) -> list[PodRow]:
    """The rows of these IngestJobs; those without one are left out."""
    found = await connection.execute(_ROWS, {"runners": [runner_of(uid) for uid in uids]})
    return [_row(row) for row in found.mappings()]


async def of(connection: AsyncConnection, principal: str, uid: str) -> Job | None:
    """The row that an earlier pod of this IngestJob accepted, if there is one."""
    row = (await connection.execute(_OF, {"runner": runner_of(uid), "principal": principal})).mappings().first()
    return None if row is None else job_of(row)


async def active(connection: AsyncConnection, after: str, limit: int, principals: Sequence[str] | None) -> list[str]:
    """The uids of rows that have not ended, in order, those after `after`; of these principals, or of all."""
    values = {"after": runner_of(after), "limit": limit, "principals": None if principals is None else list(principals)}
    found = await connection.execute(_ACTIVE, values)
    return [runner.removeprefix(_PREFIX) for runner in found.scalars()]


async def cancel(connection: AsyncConnection, uids: Sequence[str]) -> int:
    """Cancel what has not ended: at once where no pod holds it, else within a heartbeat; how many there were.

    Doing it again changes nothing.
    """
    error = JobCancelled()
    values = {"runners": [runner_of(uid) for uid in uids], "code": error.code, "message": error.message}
    asked = (await connection.execute(_CANCEL, values)).all()
    ended = {"ids": [row.id for row in asked if not row.held]}
    if ended["ids"]:
        await connection.execute(_ERASE_BODIES, ended)
    if told := [row.id for row in asked if row.told and not row.held]:
        await connection.execute(_TELL, {"ids": told})
    return len(asked)


def _row(row: RowMapping) -> PodRow:
    return PodRow(
        uid=row["runner"].removeprefix(_PREFIX),
        id=row["id"],
        status=Status(row["status"]),
        outcome=row["outcome"],
        error_code=row["error_code"],
        stage=Stage(row["stage"]),
        progress=progress_of(row["progress"]),
        attempts=0 if row["started_at"] is None else 1 + row["errors"] + row["crashes"],
        updated_at=row["updated_at"],
    )
