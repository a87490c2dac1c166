"""Intake: an accepted job is a committed row, and a refused one leaves nothing behind.

All of it happens in the caller's transaction, under an advisory lock of the principal, so a hundred equal requests make one
job and the limits of a principal are exact. The limit of the whole queue is checked without a lock over all principals; it
may be passed by as many jobs as there are principals submitting at that moment.

An `Idempotency-Key` names one job for ever (until it is forgotten, `idempotency_keep` after the job's end); therefore a
request that brings a key never shares a live job, only one without does.
"""

from __future__ import annotations

import json
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DataError
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.errors import (
    BytesQuotaExceeded,
    IdempotencyMismatch,
    InvalidRequest,
    JobNotRetryable,
    QueueFull,
    TooManyPending,
    UnknownJob,
    UnknownUpload,
    UploadIncomplete,
)
from shield.jobs.model import FLEET, Job, JobId, JobRequest, Status
from shield.jobs.rows import COLUMNS, job_of
from shield.settings import JobSettings

UNLIMITED = 1_000_000
"""Budget of a job whose retries are someone else's (a Kubernetes Job's `backoffLimit`)."""

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('shield.intake:' || :principal, 0))")
_BY_KEY = text(
    f"SELECT {COLUMNS}, coalesce(finished_at < now() - CAST(:keep AS interval), false) AS forgotten "  # noqa: S608 - our own names
    "FROM jobs WHERE principal = :principal AND idempotency_key = :key"
)
_FORGET_KEY = text("UPDATE jobs SET idempotency_key = NULL WHERE id = :id")
_LIVE_TWIN = text(
    f"SELECT {COLUMNS} FROM jobs WHERE principal = :principal AND request_hash = :hash AND runner = :runner "  # noqa: S608
    "AND status IN ('pending', 'processing') AND cancel_requested_at IS NULL AND deadline_at > now() ORDER BY seq LIMIT 1"
)
_WAITING = text(
    "SELECT count(*) AS everyone, count(*) FILTER (WHERE principal = :principal) AS own FROM jobs WHERE status = 'pending' AND runner = :fleet"
)
# From the newest job back, how much was sent since; the first row that does not fit beside the new bytes must leave the window.
_BYTES_FREE_AFTER = text("""
    SELECT extract(epoch FROM created_at + interval '1 day' - now()) FROM (
      SELECT created_at, sum(payload_bytes) OVER (ORDER BY seq DESC) AS since FROM jobs
       WHERE principal = :principal AND payload_bytes > 0 AND created_at > now() - interval '1 day') AS day
     WHERE since + :bytes > :limit ORDER BY created_at DESC LIMIT 1""")
_INSERT = text(f"""
    INSERT INTO jobs (kind, principal, runner, needs, priority, knowledge_base_id, knowledge_base, spec, payload, payload_bytes,
                      idempotency_key, request_hash, max_errors, max_crashes, deadline_at, retry_of, traceparent, budget_tokens)
    VALUES (:kind, :principal, :runner, CAST(:needs AS text[]), :priority, :knowledge_base_id, :knowledge_base, CAST(:spec AS jsonb), :payload,
            :payload_bytes, :idempotency_key, :request_hash, :max_errors, :max_crashes, now() + CAST(:deadline AS interval), :retry_of, :traceparent,
            :budget_tokens)
    RETURNING {COLUMNS}""")  # noqa: S608
_UPLOAD = text("""
    SELECT u.stored, u.job_id, u.expires_at <= now() AS expired, coalesce(j.status IN ('pending', 'processing'), false) AS in_use
      FROM uploads u LEFT JOIN jobs j ON j.id = u.job_id
     WHERE u.id = :id AND u.principal = :principal FOR UPDATE OF u""")
_TAKE_UPLOAD = text("UPDATE uploads SET job_id = :job WHERE id = :id")
_TO_RETRY = text(f"SELECT {COLUMNS}, payload_bytes FROM jobs WHERE id = :id AND principal = :principal")  # noqa: S608


async def accept(connection: AsyncConnection, request: JobRequest, settings: JobSettings) -> Job:
    """Store a new job, or return the one this request means already. Durable once the caller's transaction commits.

    Raises:
        IdempotencyMismatch: the key was used with another request.
        InvalidRequest: it holds characters that PostgreSQL cannot hold.
        QueueFull, TooManyPending, BytesQuotaExceeded: a limit is reached.
        UnknownUpload, UploadIncomplete: the upload cannot be used.
    """
    await connection.execute(_LOCK, {"principal": request.principal})
    known = await _known(connection, request, settings)
    if known is not None:
        return known
    await _check_limits(connection, request, settings)
    job = await _insert(connection, request, settings)
    if request.upload_id is not None:
        await _take_upload(connection, request, job.id)
    return job


async def retry(connection: AsyncConnection, principal: str, job_id: JobId, settings: JobSettings) -> Job:
    """A new job with the ended one's request, which starts from what that one finished (its outcomes: `retry_of`).

    Raises:
        UnknownJob: this principal has no such job.
        JobNotRetryable: it has not ended, ended complete, or is a pod's, whose retries are Kubernetes'.
        UnknownUpload: its file is gone.
        QueueFull, TooManyPending: a limit is reached.
    """
    row = (await connection.execute(_TO_RETRY, {"id": job_id, "principal": principal})).mappings().first()
    if row is None:
        raise UnknownJob
    old = job_of(row)
    if not old.status.ended or (old.status is Status.COMPLETED and old.outcome != "partial"):
        raise JobNotRetryable
    if old.runner != FLEET:
        raise JobNotRetryable("This job belongs to a pod; its retries are the Kubernetes Job's.")
    upload = old.spec.get("upload_id")
    if upload is None and row["payload_bytes"]:
        raise UnknownUpload("The job's content was erased when it ended.")
    return await accept(
        connection,
        JobRequest(
            kind=old.kind,
            principal=old.principal,
            knowledge_base_id=old.knowledge_base_id,
            knowledge_base=old.knowledge_base,
            spec=old.spec,
            request_hash=old.request_hash,
            needs=old.needs,
            priority=old.priority,
            retry_of=old.id,
            traceparent=old.traceparent,
            upload_id=UUID(upload) if upload else None,
            budget_tokens=old.budget_tokens,
        ),
        settings,
    )


async def _insert(connection: AsyncConnection, request: JobRequest, settings: JobSettings) -> Job:
    fleet = request.runner == FLEET
    values = {
        "kind": request.kind,
        "principal": request.principal,
        "runner": request.runner,
        "needs": sorted(request.needs),
        "priority": request.priority,
        "knowledge_base_id": request.knowledge_base_id,
        "knowledge_base": request.knowledge_base,
        "spec": json.dumps(request.spec),
        "payload": request.payload,
        "payload_bytes": request.payload_bytes,
        "idempotency_key": request.idempotency_key,
        "request_hash": request.request_hash,
        "max_errors": settings.max_errors if fleet else UNLIMITED,
        "max_crashes": settings.max_crashes if fleet else UNLIMITED,
        "deadline": settings.deadline if fleet else settings.pod_deadline,
        "retry_of": request.retry_of,
        "traceparent": request.traceparent,
        "budget_tokens": request.budget_tokens,
    }
    try:
        return job_of((await connection.execute(_INSERT, values)).mappings().one())
    except DataError as error:  # a NUL or a lone surrogate in some text of the request
        raise InvalidRequest("The request holds characters that cannot be stored.") from error


async def _known(connection: AsyncConnection, request: JobRequest, settings: JobSettings) -> Job | None:
    """The job that this request already made: by its key, or, without one, an identical live one."""
    if request.idempotency_key is not None:
        found = await connection.execute(
            _BY_KEY, {"principal": request.principal, "key": request.idempotency_key, "keep": settings.idempotency_keep}
        )
        row = found.mappings().first()
        if row is None:
            return None
        job = job_of(row)
        if row["forgotten"]:
            await connection.execute(_FORGET_KEY, {"id": job.id})
            return None
        if job.request_hash != request.request_hash:
            raise IdempotencyMismatch
        return job
    if request.share_live:
        found = await connection.execute(
            _LIVE_TWIN, {"principal": request.principal, "hash": request.request_hash, "runner": request.runner}
        )
        row = found.mappings().first()
        return None if row is None else job_of(row)
    return None


async def _check_limits(connection: AsyncConnection, request: JobRequest, settings: JobSettings) -> None:
    """Refuse before anything is stored. A pod's own row waits in no queue, so only the bytes count for it."""
    pause = settings.poll_after.total_seconds()
    if request.runner == FLEET:
        waiting = (await connection.execute(_WAITING, {"principal": request.principal, "fleet": FLEET})).one()
        if waiting.own >= settings.max_pending_principal:
            raise TooManyPending(retry_after=pause, limit=settings.max_pending_principal)
        if waiting.everyone >= settings.max_pending:
            raise QueueFull(retry_after=pause)
    if request.payload_bytes > settings.max_bytes_day:
        raise BytesQuotaExceeded("This is more than you may send in a whole day.", limit=int(settings.max_bytes_day))
    if request.payload_bytes:
        free_after = (
            await connection.execute(
                _BYTES_FREE_AFTER, {"principal": request.principal, "bytes": request.payload_bytes, "limit": int(settings.max_bytes_day)}
            )
        ).scalar()
        if free_after is not None:
            raise BytesQuotaExceeded(retry_after=max(float(free_after), pause), limit=int(settings.max_bytes_day))


async def _take_upload(connection: AsyncConnection, request: JobRequest, job_id: JobId) -> None:
    """Tie the upload to its job, once; a retry may take over the upload of a job that has ended."""
    row = (await connection.execute(_UPLOAD, {"id": request.upload_id, "principal": request.principal})).first()
    if row is None or row.in_use or (row.job_id is None and row.expired) or (row.job_id is not None and request.retry_of is None):
        raise UnknownUpload
    if not row.stored:
        raise UploadIncomplete
    await connection.execute(_TAKE_UPLOAD, {"id": request.upload_id, "job": job_id})
