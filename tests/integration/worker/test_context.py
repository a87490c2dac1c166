"""The context: progress that is written calmly and survives an outage, and checkpoints that say why to stop."""

from __future__ import annotations

import pytest

from shield.errors import DatabaseUnavailable, JobCancelled, LeaseLost
from shield.jobs.events import JobEvents
from shield.jobs.model import DocumentOutcome, OutcomeStatus, Progress, Stage
from shield.jobs.repository import JobRepository
from shield.settings import JobSettings
from shield.worker.context import Draining, JobContext
from tests.integration.jobs.support import ME, OTHER, Rows, a_request, job_settings
from tests.integration.worker.conftest import Outage


async def a_context(jobs: JobRepository, settings: JobSettings | None = None) -> JobContext:
    claim = await jobs.claim((await jobs.accept(a_request())).id, ME)
    assert claim is not None
    return JobContext(claim, jobs, JobEvents(), settings or job_settings())


async def stored(jobs: JobRepository, context: JobContext) -> tuple[Stage, Progress]:
    job = await jobs.get(None, context.job.id)
    return job.stage, job.progress


async def test_progress_is_written_first_at_once_then_calmly_and_at_a_new_stage_at_once(jobs: JobRepository) -> None:
    context = await a_context(jobs, job_settings(progress=3600))
    await context.progress(documents=1)
    assert await stored(jobs, context) == (Stage.QUEUED, Progress(documents=1))
    await context.progress(documents=2)
    await context.checkpoint()
    assert await stored(jobs, context) == (Stage.QUEUED, Progress(documents=1))
    await context.progress(stage=Stage.INDEX, chunks=5)
    assert await stored(jobs, context) == (Stage.INDEX, Progress(documents=2, chunks=5))
    await context.progress(documents=3)
    await context.flush()
    assert await stored(jobs, context) == (Stage.INDEX, Progress(documents=3, chunks=5))


async def test_a_checkpoint_writes_what_was_reported_meanwhile(jobs: JobRepository) -> None:
    context = await a_context(jobs, job_settings(progress=0))
    await context.progress(documents=1)
    await context.checkpoint()
    assert (await stored(jobs, context))[1] == Progress(documents=1)


async def test_an_outage_costs_a_late_number_but_an_outcome_is_never_passed_over(jobs: JobRepository, outage: Outage) -> None:
    context = await a_context(jobs)
    async with outage():
        await context.progress(stage=Stage.INDEX, documents=4)
        with pytest.raises(DatabaseUnavailable):
            await context.outcome(DocumentOutcome(1, "u", OutcomeStatus.STORED))
    await context.flush()
    assert await stored(jobs, context) == (Stage.INDEX, Progress(documents=4))


async def test_a_resumed_job_begins_with_the_numbers_it_had(jobs: JobRepository, rows: Rows) -> None:
    first = await a_context(jobs)
    await first.progress(stage=Stage.INDEX, documents=4, percentage=50)
    await rows.lapse(first.job.id)
    claim = await jobs.claim(first.job.id, OTHER)
    assert claim is not None
    second = JobContext(claim, jobs, JobEvents(), job_settings())
    await second.progress(documents=1, percentage=10)
    assert (second.stage, second.latest) == (Stage.INDEX, Progress(documents=4, percentage=50))
    with pytest.raises(LeaseLost):
        await first.progress(stage=Stage.GRAPH)


async def test_a_checkpoint_raises_the_first_reason_to_stop(jobs: JobRepository) -> None:
    context = await a_context(jobs)
    await context.checkpoint()
    context.stop(JobCancelled())
    context.stop(Draining())
    with pytest.raises(JobCancelled):
        await context.checkpoint()
