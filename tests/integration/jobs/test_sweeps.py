"""Sweeps: every live job reaches an end, and only the rows that are ours to touch are touched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import UnknownJob
from shield.jobs.model import DocumentOutcome, JobId, OutcomeStatus, QueueStats, Stage, Status, Swept
from shield.jobs.repository import JobRepository
from tests.integration.jobs.support import ME, OTHER, Rows, a_request

POD = "ingestjob:1"


async def running(jobs: JobRepository, runner: str = "fleet") -> JobId:
    claim = await jobs.claim((await jobs.accept(a_request(runner=runner))).id, ME, runner=runner)
    assert claim is not None
    return claim.job.id


async def parked(jobs: JobRepository, runner: str = "fleet") -> JobId:
    claim = await jobs.claim((await jobs.accept(a_request(runner=runner))).id, ME, runner=runner)
    assert claim is not None
    return (await jobs.park(claim)).id


async def waiting_for_llm(jobs: JobRepository) -> JobId:
    claim = await jobs.claim((await jobs.accept(a_request())).id, ME)
    assert claim is not None
    return (await jobs.hand_back(claim, "llm")).id


async def pending(jobs: JobRepository) -> JobId:
    return (await jobs.accept(a_request())).id


class TestDeadline:
    @pytest.mark.parametrize(
        ("make", "named"),
        [(pending, "a free worker"), (waiting_for_llm, "it waited for llm"), (parked, "it waited for graph"), (running, "stage queued")],
        ids=["pending", "handed back", "parked", "running"],
    )
    async def test_a_late_job_fails_and_names_what_it_waited_for(
        self, jobs: JobRepository, rows: Rows, make: Callable[[JobRepository], Awaitable[JobId]], named: str
    ) -> None:
        job_id = await make(jobs)
        await rows.make_late(job_id)
        assert await jobs.sweep() == Swept(expired=1)
        job = await jobs.get("ada", job_id)
        assert (job.status, job.error_code, job.parked) == (Status.FAILED, "job.deadline_exceeded", False)
        assert named in str(job.error_message)

    async def test_deadlines_and_cancels_hold_for_every_runner(self, jobs: JobRepository, rows: Rows) -> None:
        late, unwanted = await running(jobs, POD), await running(jobs, POD)
        await rows.make_late(late)
        await jobs.request_cancel("ada", unwanted)
        await rows.lapse(unwanted)
        assert await jobs.sweep() == Swept(expired=1, cancelled=1, lapsed=1)


async def test_the_budgets_and_parked_jobs_of_another_runner_are_left_alone(jobs: JobRepository, rows: Rows) -> None:
    worn, waiting = await running(jobs, POD), await parked(jobs, POD)
    await rows.run("UPDATE jobs SET crashes = max_crashes WHERE id = :id", id=worn)
    await rows.lapse(worn)
    assert await jobs.sweep() == Swept()
    assert await jobs.sweep(POD) == Swept(exhausted=1, unparked=1, lapsed=1)
    assert (await jobs.get("ada", waiting)).status is Status.PENDING


async def test_a_cancel_that_met_no_worker_is_carried_out(jobs: JobRepository, rows: Rows) -> None:
    job_id = await running(jobs)
    await jobs.request_cancel("ada", job_id)
    assert await jobs.sweep() == Swept()  # its worker may still answer
    await rows.lapse(job_id)
    assert await jobs.sweep() == Swept(cancelled=1, lapsed=1)
    job = await jobs.get("ada", job_id)
    assert (job.status, job.crashes) == (Status.CANCELLED, 0)


class TestParking:
    @pytest.mark.parametrize("status", ["done", "failed", "superseded"])
    async def test_a_parked_job_goes_on_when_its_graph_steps_are_through_however_they_ended(
        self, jobs: JobRepository, rows: Rows, status: str
    ) -> None:
        job_id = (await jobs.accept(a_request())).id
        await rows.graph_task(job_id)
        task = await rows.graph_task(job_id)
        claim = await jobs.claim(job_id, ME)
        assert claim is not None
        job = await jobs.park(claim)
        assert (job.status, job.parked, job.lease_until, job.stage) == (Status.PROCESSING, True, None, Stage.GRAPH)
        assert await jobs.claim_next(OTHER) is None
        await rows.run("UPDATE graph_tasks SET status = 'done' WHERE id <> :id", id=task)
        assert await jobs.unpark() == 0
        await rows.run("UPDATE graph_tasks SET status = :status WHERE id = :id", id=task, status=status)
        assert await jobs.unpark() == 1
        again = await jobs.claim_next(OTHER)
        assert again is not None
        assert (again.resumed, again.job.stage, again.job.crashes, again.fence) == (True, Stage.GRAPH, 0, 2)


async def test_ended_jobs_are_kept_as_long_as_promised_with_their_outcomes(jobs: JobRepository, rows: Rows) -> None:
    job = await jobs.accept(a_request())
    claim = await jobs.claim(job.id, ME)
    assert claim is not None
    await jobs.record_outcome(claim, DocumentOutcome(1, "u", OutcomeStatus.STORED))
    await jobs.finish(claim, Status.COMPLETED, outcome="complete")
    await rows.shift("finished_at", job.id, timedelta(days=-29))
    assert await jobs.sweep() == Swept()
    await rows.shift("finished_at", job.id, timedelta(days=-31))
    assert await jobs.sweep() == Swept(removed=1)
    with pytest.raises(UnknownJob):
        await jobs.get("ada", job.id)
    assert await jobs.outcome_count(job.id) == 0


async def test_one_process_sweeps_at_a_time_and_locked_rows_are_left_for_later(
    jobs: JobRepository, rows: Rows, engine: AsyncEngine
) -> None:
    job_id = await pending(jobs)
    await rows.make_late(job_id)
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('shield.sweep', 0))"))
        assert await jobs.sweep() is None
    async with engine.begin() as connection:
        await connection.execute(text("SELECT 1 FROM jobs FOR UPDATE"))
        assert await jobs.sweep() == Swept()
    assert await jobs.sweep() == Swept(expired=1)


async def test_a_new_owner_takes_over_the_jobs_of_a_killed_one_without_waiting_for_their_leases(jobs: JobRepository) -> None:
    job_id = await running(jobs)
    pods = await running(jobs, POD)
    assert await jobs.claim_next(OTHER) is None
    assert await jobs.abandon_leases() == 1
    claim = await jobs.claim_next(OTHER)
    assert claim is not None
    assert (claim.job.id, claim.job.crashes) == (job_id, 1)
    assert await jobs.claim(pods, OTHER, runner=POD) is None


async def test_the_queue_is_counted(jobs: JobRepository, rows: Rows) -> None:
    assert await jobs.stats() == QueueStats()
    await running(jobs)
    await parked(jobs)
    await jobs.request_cancel("ada", await pending(jobs))
    await rows.shift("available_at", await pending(jobs), timedelta(hours=1))
    assert (await jobs.stats()).oldest_pending == 0
    await rows.shift("available_at", await pending(jobs), timedelta(seconds=-90))
    stats = await jobs.stats()
    assert (stats.pending, stats.processing, stats.parked) == (2, 1, 1)
    assert stats.oldest_pending == pytest.approx(90, abs=10)
