"""The 202 pattern at the level of the domain: accepted at once, polled at a calm pace, ended once and for all.

Everything here runs on a real database; what HTTP and MCP make of it is tested with them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import JobEnded, LeaseLost, PageUnreachable
from shield.jobs.model import Claim, Job, JobKind, JobRequest, Status, WorkerId
from shield.jobs.polling import poll_after
from shield.jobs.repository import JobRepository
from shield.settings import JobSettings
from tests.integration.jobs.support import KB

SETTINGS = JobSettings()
REQUEST = JobRequest(
    kind=JobKind.CRAWL,
    principal="ada",
    knowledge_base_id=KB,
    knowledge_base="default",
    spec={"type": "crawl", "url": "https://example.org/"},
    request_hash="h",
    idempotency_key="once",
)


@pytest.fixture
def jobs(engine: AsyncEngine) -> JobRepository:
    return JobRepository(engine, SETTINGS)


async def end(jobs: JobRepository, job: Job, status: Status) -> Job:
    claim = await jobs.claim(job.id, WorkerId("w"))
    assert claim is not None
    match status:
        case Status.COMPLETED:
            return await jobs.finish(claim, status, outcome="complete")
        case Status.FAILED:
            return await jobs.finish(claim, status, error=PageUnreachable())
    return await jobs.cancelled(claim)


async def test_a_request_is_answered_at_once_with_a_pending_job_that_is_on_record(jobs: JobRepository) -> None:
    job = await jobs.accept(REQUEST)
    assert (job.status, job.progress.percentage, job.started_at, job.finished_at) == (Status.PENDING, 0, None, None)
    assert poll_after(job, job.created_at, SETTINGS) == 2
    assert await jobs.get("ada", job.id) == job


async def test_the_same_request_again_is_the_same_job_whenever_it_comes(jobs: JobRepository) -> None:
    first = await jobs.accept(REQUEST)
    assert {job.id for job in await asyncio.gather(*(jobs.accept(REQUEST) for _ in range(20)))} == {first.id}
    await end(jobs, first, Status.COMPLETED)
    again = await jobs.accept(REQUEST)
    assert (again.id, again.status) == (first.id, Status.COMPLETED)


async def test_polling_slows_down_after_thirty_seconds_and_stops_at_the_end(jobs: JobRepository) -> None:
    job = await jobs.accept(REQUEST)
    pauses = [poll_after(job, job.created_at + timedelta(seconds=age), SETTINGS) for age in (0, 29.9, 30, 3600)]
    assert pauses == [2, 2, 5, 5]
    ended = dataclasses.replace(job, status=Status.COMPLETED)
    assert poll_after(ended, job.created_at, SETTINGS) == 0


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_an_end_state_never_changes(jobs: JobRepository, status: Status) -> None:
    job = await end(jobs, await jobs.accept(REQUEST), status)
    assert job.status is status
    assert job.status.ended
    assert job.finished_at is not None
    assert (job.progress.percentage == 100) == (status is Status.COMPLETED)
    assert await jobs.claim(job.id, WorkerId("w")) is None
    with pytest.raises(LeaseLost):
        await jobs.finish(Claim(job, job.fence, WorkerId("w")), Status.COMPLETED)
    if status is not Status.CANCELLED:
        with pytest.raises(JobEnded):
            await jobs.request_cancel("ada", job.id)
    await jobs.sweep()
    assert await jobs.get("ada", job.id) == job


async def test_a_job_is_never_lost_by_a_worker_that_dies(jobs: JobRepository) -> None:
    job = await jobs.accept(REQUEST)
    assert await jobs.claim(job.id, WorkerId("dies")) is not None
    assert await jobs.abandon_leases() == 1
    claim = await jobs.claim_next(WorkerId("lives"))
    assert claim is not None
    assert (claim.job.id, claim.resumed) == (job.id, True)
