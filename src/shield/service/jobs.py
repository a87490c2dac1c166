"""Following jobs: one, many, live; cancelling and retrying."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shield.auth import Principal, Scope
from shield.errors import InvalidRequest, UnknownKnowledgeBase
from shield.jobs.model import WEBHOOK, Job, JobId, JobKind, Status
from shield.jobs.polling import poll_after
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.proofs import proof_of_job
from shield.service.models import JobList, JobView
from shield.service.parts import Parts
from shield.service.views import job_view
from shield.service.webhooks import delivery_of

MAX_WAIT = 45.0
"""Longest wait of one call, in seconds; clients give up at 60."""
_POLL = 0.5  # seconds between two looks at a row that another process may be changing
_REMOVING = frozenset({JobKind.DELETE, JobKind.CRAWL})
"""Kinds of jobs that may remove documents, and then prove it."""
KEEP_ALIVE = 15.0
"""Seconds of silence after which a watcher of events gets a comment."""


class JobCases:
    """What a principal does with its jobs."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.base_url = parts.settings.public_url or ""
        """Where clients reach this server; set once the port is known."""

    async def job(self, who: Principal, job_id: UUID, *, wait: float = 0, outcomes_after: int = 0, outcomes_limit: int = 20) -> JobView:
        """One job; see `Shield.job`."""
        who.require(Scope.JOBS_READ)
        job = await self.parts.jobs.get(who.name, JobId(job_id))
        if wait > 0 and not job.status.ended:
            job = await self._wait(who, job, min(wait, MAX_WAIT))
        return await self._full_view(job, outcomes_after, outcomes_limit)

    async def jobs(
        self,
        who: Principal,
        *,
        status: str | None = None,
        code: str | None = None,
        knowledge_base: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> JobList:
        """The principal's jobs, newest first; those whose error has this `code`, if one is named."""
        who.require(Scope.JOBS_READ)
        if status is not None and status not in set(Status):
            raise InvalidRequest(f"status: one of {', '.join(Status)}.", fields=["status"])
        binding = (who.name, "jobs", status or "", code or "", knowledge_base or "")
        before = self.parts.cursors.read_number(cursor, *binding) or None
        page = await self.parts.jobs.list(
            who.name, status=Status(status) if status else None, code=code, knowledge_base=knowledge_base, limit=limit, before=before
        )
        following = self.parts.cursors.make(page.next, *binding) if page.next is not None else None
        return JobList(jobs=[self._view(job) for job in page.jobs], next_cursor=following)

    async def cancel(self, who: Principal, job_id: UUID) -> JobView:
        """Ask a job to stop; it takes the scope that starting it took."""
        _require_as_for(who, await self.parts.jobs.get(who.name, JobId(job_id)))
        job = await self.parts.jobs.request_cancel(who.name, JobId(job_id))
        self.parts.notify(job.id)
        return self._view(job)

    async def retry(self, who: Principal, job_id: UUID) -> JobView:
        """A new job that goes on where the old one ended, if it could be started today: rights may have changed since."""
        old = await self.parts.jobs.get(who.name, JobId(job_id))
        _require_as_for(who, old)
        if not who.everywhere:
            _seen(who, await self.parts.bases.by_id(old.knowledge_base_id, deleting=True))
        job = await self.parts.jobs.retry(who.name, JobId(job_id))
        self.parts.notify(None)
        return self._view(job)

    async def events(
        self, who: Principal, job_id: UUID, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        """Live events; after a `last_event_id` that is remembered, what came since, otherwise a snapshot, which holds all that matters."""
        who.require(Scope.JOBS_READ)
        with self.parts.events.subscribe(JobId(job_id)) as subscription:
            missed = self.parts.events.since(JobId(job_id), last_event_id) if last_event_id else None
            job = await self.parts.jobs.get(who.name, JobId(job_id))
            seen = _marks(job)
            for past in missed or ():
                if past.name == "progress":
                    yield past.id, past.name, {"job_id": str(job_id), **past.data}
            if missed is None and (last_event_id != f"{job.fence}-end" or not job.status.ended):
                yield f"{job.fence}-0", "snapshot", self._event(job)
            while not job.status.ended:
                event = await subscription.next(_POLL)
                if event is not None and event.name == "progress":
                    yield event.id, event.name, {"job_id": str(job_id), **event.data}
                    continue
                job = await self.parts.jobs.get(who.name, JobId(job_id))
                if not job.status.ended and _marks(job) != seen:
                    seen = _marks(job)
                    yield f"{job.fence}-{int(job.updated_at.timestamp() * 1000)}", "progress", self._event(job)
            yield f"{job.fence}-end", "end", self._event(job)

    async def _base(self, who: Principal, name: str) -> KnowledgeBase:
        """The base of that name; one that is not granted is as unknown as one that does not exist."""
        return _seen(who, await self.parts.bases.get(name))

    async def _wait(self, who: Principal, job: Job, seconds: float) -> Job:
        """The job when it has ended, or as it stands after `seconds`."""
        with suppress(TimeoutError), self.parts.events.subscribe(job.id) as subscription:
            async with asyncio.timeout(seconds):
                while not job.status.ended:
                    await subscription.next(_POLL)
                    job = await self.parts.jobs.get(who.name, job.id)
        return job

    async def _full_view(self, job: Job, after: int, limit: int) -> JobView:
        outcomes = await self.parts.jobs.outcomes(job.id, after=after, limit=limit)
        total = await self.parts.jobs.outcome_count(job.id)
        proof = await proof_of_job(self.parts.engine, job.id) if job.kind in _REMOVING and job.status.ended else None
        webhook = await delivery_of(self.parts.engine, job.id) if WEBHOOK in job.spec and job.status.ended else None
        return job_view(job, poll_after=self._poll_after(job), outcomes=outcomes, outcomes_total=total, proof=proof, webhook=webhook)

    def _view(self, job: Job) -> JobView:
        return job_view(job, poll_after=self._poll_after(job))

    def _poll_after(self, job: Job) -> float:
        return poll_after(job, datetime.now(UTC), self.parts.settings.jobs)

    def _event(self, job: Job) -> dict[str, Any]:
        return {
            "job_id": str(job.id),
            "status": job.status.value,
            "stage": job.stage.value,
            "outcome": job.outcome,
            "progress": asdict(job.progress),
            "error": job.error_code,
        }


def _seen(who: Principal, base: KnowledgeBase) -> KnowledgeBase:
    if not who.sees(base.name, base.owner):
        raise UnknownKnowledgeBase
    return base


def _require_as_for(who: Principal, job: Job) -> None:
    """Pass if this principal could start such a job."""
    if job.kind is JobKind.CRAWL:
        who.require(Scope.CRAWL)
        if job.spec.get("remove_vanished"):
            who.require(Scope.KB_WRITE)
        return
    of_document = job.kind is JobKind.INGEST or (job.kind is JobKind.DELETE and "document_id" in job.spec)
    who.require(Scope.KB_WRITE if of_document else Scope.ADMIN)


def _marks(job: Job) -> tuple[object, ...]:
    return job.status, job.stage, job.progress, job.fence
