"""Completion webhooks: who asked for it is told once a job has ended, with a signed POST that is tried until it is taken.

The row in `webhook_deliveries` is written in the transaction that ends the job, so no end goes untold; jobs that a worker of an older
release ended are found by a look back. Every orchestrator runs a `Dispatcher`; a lease on the row keeps two from sending at once. A
process that dies between the answer and its note sends again: a receiver knows a repetition by its `webhook-id`, which is the job's.

The form is that of Standard Webhooks (https://www.standardwebhooks.com, 1.0): headers `webhook-id`, `webhook-timestamp` and
`webhook-signature: v1,` + base64 of HMAC-SHA256 over `id.timestamp.body`. 2xx ends the delivery, 410 gives it up at once, everything
else is tried again. The address goes through the egress guard at each try, redirects are not followed, and the answer's body is not read.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.errors import DatabaseUnavailable, PageHttpError, ShieldError
from shield.jobs.model import Job, JobId
from shield.jobs.repository import JobRepository
from shield.service.models import WebhookView
from shield.settings import WebhookSettings
from shield.sources.egress import EgressGuard
from shield.sources.exchange import answered, exchange, typed_failures

log = structlog.get_logger(__name__)

_GONE = 410
_GROWTH = 4
_LOOK_BACK = 60.0  # seconds between two looks for ends that were not noted
_WIDTH = 4
"""Deliveries of one process at once."""

_TAKE = text("""
    UPDATE webhook_deliveries SET attempts = attempts + 1, lease_until = now() + CAST(:lease AS interval)
     WHERE job_id = (SELECT job_id FROM webhook_deliveries
                      WHERE status = 'pending' AND available_at <= now() AND (lease_until IS NULL OR lease_until < now())
                      ORDER BY available_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING job_id, url, attempts""")
_SETTLE = text("""
    UPDATE webhook_deliveries SET status = :status, code = :code, lease_until = NULL, available_at = now() + CAST(:after AS interval),
           finished_at = CASE WHEN :status = 'pending' THEN NULL ELSE now() END
     WHERE job_id = :job_id AND attempts = :attempts AND status = 'pending'""")
_MISSED = text("""
    INSERT INTO webhook_deliveries (job_id, url)
    SELECT id, spec->>'webhook' FROM jobs WHERE finished_at > now() - interval '1 day' AND spec->>'webhook' IS NOT NULL
    ON CONFLICT DO NOTHING""")
_ONE = text("SELECT url, status, attempts, code FROM webhook_deliveries WHERE job_id = :job_id")


async def delivery_of(engine: AsyncEngine, job_id: UUID) -> WebhookView | None:
    """How the webhook of an ended job stands; None before it was noted."""
    with database_errors():
        async with engine.connect() as connection:
            row = (await connection.execute(_ONE, {"job_id": job_id})).mappings().first()
    return WebhookView(**row) if row else None


class Dispatcher:
    """Sends what is due.

    Args:
        engine: where the deliveries are.
        jobs: where the jobs are.
        guard: which addresses may be called.
        settings: the secret, limits and pauses.
        count: told of each attempt's end: `delivered`, `retried` or `failed` (for metrics).
    """

    def __init__(
        self, engine: AsyncEngine, jobs: JobRepository, guard: EgressGuard, settings: WebhookSettings, count: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._guard = guard
        self._settings = settings
        self._count = count

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set; without a secret nothing is ever due."""
        looked_back = float("-inf")
        while not stop.is_set():
            sent = False
            try:
                if time.monotonic() - looked_back > _LOOK_BACK:
                    await self._look_back()
                    looked_back = time.monotonic()
                async with asyncio.TaskGroup() as tasks:
                    turns = [tasks.create_task(self.deliver_one()) for _ in range(_WIDTH)]
                sent = any(turn.result() for turn in turns)
            except* DatabaseUnavailable:
                pass  # the rows are still there when it is back
            if not sent:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._settings.poll.total_seconds() * random.uniform(0.75, 1.25))  # noqa: S311

    async def deliver_one(self) -> bool:
        """Try one delivery that is due; False if there is none.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        if self._settings.secret is None:
            return False
        taken = await self._execute(_TAKE, lease=self._settings.timeout * 2)
        if taken is None:
            return False
        job = await self._jobs.get(None, JobId(taken.job_id))
        try:
            await self._post(taken.url, job)
        except ShieldError as error:
            await self._put_off(taken, error)
        else:
            self._count("delivered")
            await self._execute(_SETTLE, job_id=job.id, attempts=taken.attempts, status="delivered", code=None, after=self._settings.poll)
        return True

    async def _post(self, url: str, job: Job) -> None:
        body = message(job)
        headers = {"Content-Type": "application/json", **signed(self._secret(), f"job_{job.id}", int(time.time()), body)}
        with typed_failures():
            async with asyncio.timeout(self._settings.timeout.total_seconds()):
                target = await self._guard.check(url)
                async with exchange(self._guard, target, headers, post=body) as response:
                    status = response.status
        if not 200 <= status < 300:
            raise PageHttpError(answered(status), status=status)

    async def _put_off(self, taken: Any, error: ShieldError) -> None:
        over = taken.attempts >= self._settings.tries or error.details.get("status") == _GONE
        pause = min(self._settings.backoff_max, self._settings.backoff_min * _GROWTH ** (taken.attempts - 1)) * random.uniform(0.75, 1.25)  # noqa: S311
        status = "failed" if over else "pending"
        self._count("failed" if over else "retried")
        log.info("webhook.not_taken", job_id=str(taken.job_id), code=error.code, attempts=taken.attempts, given_up=over)
        await self._execute(_SETTLE, job_id=taken.job_id, attempts=taken.attempts, status=status, code=error.code, after=pause)

    async def _look_back(self) -> None:
        if self._settings.secret is not None:
            await self._execute(_MISSED)

    async def _execute(self, statement: Any, **values: Any) -> Any:
        with database_errors():
            async with self._engine.begin() as connection:
                result = await connection.execute(statement, values)
                return result.first() if result.returns_rows else None

    def _secret(self) -> bytes:
        assert self._settings.secret is not None  # noqa: S101  nothing is due without one
        return key(self._settings.secret.get_secret_value())


def message(job: Job) -> bytes:
    """The body: what became of the job, and nothing of what it read."""
    assert job.finished_at is not None  # noqa: S101  only ended jobs are told of
    told = {
        "type": f"job.{job.status}",
        "timestamp": job.finished_at.isoformat(),
        "data": {
            "job_id": str(job.id),
            "status": job.status,
            "outcome": job.outcome,
            "error": job.error_code,
            "kind": job.kind,
            "knowledge_base": job.knowledge_base,
            "progress": asdict(job.progress),
        },
    }
    return json.dumps(told, separators=(",", ":")).encode()


def signed(secret: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks.

    Args:
        secret: the shared key.
        message_id: the same for each try.
        timestamp: seconds since 1970, so that a receiver can refuse old messages.
        body: as it is sent.
    """
    mac = hmac.new(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def key(secret: str) -> bytes:
    """The key behind a secret: of `whsec_...` the base64 part's bytes, of anything else its own."""
    if secret.startswith("whsec_"):
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret.encode()
