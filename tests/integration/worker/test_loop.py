"""The loop: how jobs end, what stops them, what an outage costs, and a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta

import pytest

from shield.errors import (
    CircuitOpen,
    DatabaseUnavailable,
    DependencyMisconfigured,
    DependencyThrottled,
    DependencyUnavailable,
    DocumentEncrypted,
    LeaseLost,
    NothingIngested,
    ShieldError,
)
from shield.jobs.events import JobEvents
from shield.jobs.model import Job, JobKind, Stage, Status
from shield.jobs.repository import JobRepository
from shield.worker.attempt import cause
from shield.worker.context import Completed, Ending, Failed, JobContext, Parked
from shield.worker.observer import Observer
from tests.integration.jobs.support import OTHER, Rows, a_request, job_settings
from tests.integration.worker.conftest import Outage
from tests.integration.worker.support import Scripted, a_worker, complete, deaf, ended, eventually, running, until_told


def raising(error: Exception) -> Scripted:
    async def script(_: JobContext) -> Ending:
        raise error

    return Scripted(script)


def returning(ending: Ending) -> Scripted:
    async def script(_: JobContext) -> Ending:
        return ending

    return Scripted(script)


async def run_one(jobs: JobRepository, handler: Scripted) -> Job:
    """Accept a job and run it once."""
    worker = a_worker(jobs, handler)
    claim = await jobs.claim((await jobs.accept(a_request())).id, worker.id)
    assert claim is not None
    job = await worker.run_one(claim)
    assert job is not None
    return job


class TestEndings:
    @pytest.mark.parametrize("outcome", ["complete", "partial"])
    async def test_a_completed_job(self, jobs: JobRepository, outcome: str) -> None:
        job = await run_one(jobs, returning(Completed(outcome)))  # type: ignore[arg-type]
        assert (job.status, job.outcome, job.progress.percentage) == (Status.COMPLETED, outcome, 100)

    async def test_a_failed_job(self, jobs: JobRepository) -> None:
        job = await run_one(jobs, returning(Failed(NothingIngested("All 3 pages failed."))))
        assert (job.status, job.error_code, job.error_message) == (Status.FAILED, "job.nothing_ingested", "All 3 pages failed.")

    async def test_a_parked_job(self, jobs: JobRepository) -> None:
        job = await run_one(jobs, returning(Parked(Stage.GRAPH)))
        assert (job.status, job.parked, job.stage) == (Status.PROCESSING, True, Stage.GRAPH)

    @pytest.mark.parametrize(
        "error",
        [
            CircuitOpen(retry_after=30, service="llm"),
            DependencyMisconfigured(service="llm"),
            DependencyThrottled(retry_after=30, service="llm"),
            DependencyUnavailable(service="llm"),
        ],
        ids=lambda error: error.code,
    )
    async def test_a_dependency_that_is_not_to_be_had_costs_nothing(self, jobs: JobRepository, error: ShieldError) -> None:
        job = await run_one(jobs, raising(error))
        assert (job.status, job.waiting_for, job.errors) == (Status.PENDING, "llm", 0)
        assert job.available_at - job.updated_at >= timedelta(seconds=error.retry_after or 0.05)

    async def test_a_database_that_went_away_costs_nothing(self, jobs: JobRepository) -> None:
        job = await run_one(jobs, raising(DatabaseUnavailable()))
        assert (job.status, job.waiting_for, job.errors) == (Status.PENDING, "postgres", 0)

    @pytest.mark.parametrize(
        ("error", "code"),
        [(DependencyUnavailable(), "dependency.unavailable"), (RuntimeError("secret detail"), "request.internal")],
        ids=["typed", "unexpected"],
    )
    async def test_a_transient_error_spends_one_and_shows_nothing_it_must_not(
        self, jobs: JobRepository, error: Exception, code: str
    ) -> None:
        job = await run_one(jobs, raising(error))
        assert (job.status, job.errors, job.error_code) == (Status.PENDING, 1, code)
        assert "secret" not in str(job.error_message)

    async def test_an_error_that_no_retry_mends_fails_the_job(self, jobs: JobRepository) -> None:
        job = await run_one(jobs, raising(DocumentEncrypted()))
        assert (job.status, job.error_code, job.errors) == (Status.FAILED, "document.encrypted", 0)

    async def test_an_error_out_of_a_task_group_is_seen_through_the_group(self, jobs: JobRepository) -> None:
        async def script(_: JobContext) -> Ending:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(raising(DocumentEncrypted()).run(_))
                await deaf(_)
            raise AssertionError

        assert (await run_one(jobs, Scripted(script))).error_code == "document.encrypted"

    async def test_three_errors_in_a_row_give_the_job_up(self, jobs: JobRepository) -> None:
        handler = raising(DependencyUnavailable())
        job = await jobs.accept(a_request())
        async with running(a_worker(jobs, handler)):
            job = await ended(jobs, job.id)
        assert (job.error_code, len(handler.runs)) == ("job.retries_exhausted", 3)

    def test_the_reason_to_stop_outweighs_the_errors_beside_it(self) -> None:
        encrypted, bug, lost, throttled = DocumentEncrypted(), ValueError(), LeaseLost(), DependencyThrottled()
        assert cause(ExceptionGroup("", [bug, encrypted, ExceptionGroup("", [throttled, lost])])) is lost
        assert cause(ExceptionGroup("", [bug, encrypted, throttled])) is throttled
        assert cause(ExceptionGroup("", [bug, encrypted])) is encrypted
        assert cause(ExceptionGroup("", [bug])) is bug


class TestStopping:
    @pytest.mark.parametrize("script", [until_told, deaf], ids=["at a checkpoint", "deaf"])
    async def test_a_cancel_takes_effect_within_a_heartbeat(self, jobs: JobRepository, script: object) -> None:
        handler = Scripted(script)  # type: ignore[arg-type]
        job = await jobs.accept(a_request())
        async with running(a_worker(jobs, handler)):
            await handler.begun.wait()
            began = time.monotonic()
            await jobs.request_cancel("ada", job.id)
            assert (await ended(jobs, job.id)).status is Status.CANCELLED
            assert time.monotonic() - began < 0.6 + 1.5  # a heartbeat, and the machine's breath

    async def test_a_nudge_makes_a_cancel_take_effect_at_once(self, jobs: JobRepository) -> None:
        handler = Scripted(deaf)
        job = await jobs.accept(a_request())
        worker = a_worker(jobs, handler, job_settings(lease=60, heartbeat=20))
        async with running(worker):
            await handler.begun.wait()
            await jobs.request_cancel("ada", job.id)
            worker.notify(job.id)
            assert (await ended(jobs, job.id, limit=3)).status is Status.CANCELLED

    async def test_a_job_past_its_deadline_stops(self, jobs: JobRepository, rows: Rows) -> None:
        async def script(context: JobContext) -> Ending:
            await context.progress(stage=Stage.CONVERT)
            await rows.make_late(context.job.id)
            return await deaf(context)

        job = await run_one(jobs, Scripted(script))
        assert (job.status, job.error_code) == (Status.FAILED, "job.deadline_exceeded")
        assert "convert" in str(job.error_message)

    async def test_a_worker_that_lost_its_job_stops_and_leaves_it_to_the_other(self, jobs: JobRepository, rows: Rows) -> None:
        handler = Scripted(deaf)
        worker = a_worker(jobs, handler)
        claim = await jobs.claim((await jobs.accept(a_request())).id, worker.id)
        assert claim is not None
        task = asyncio.create_task(worker.run_one(claim))
        await handler.begun.wait()
        await rows.lapse(claim.job.id)
        other = await jobs.claim(claim.job.id, OTHER)
        assert other is not None
        assert await task is None
        job = await jobs.get("ada", claim.job.id)
        assert (job.status, job.fence, job.crashes) == (Status.PROCESSING, other.fence, 1)

    @pytest.mark.parametrize("script", [until_told, deaf], ids=["at a checkpoint", "deaf"])
    async def test_a_stopping_worker_hands_its_jobs_back_at_no_cost_and_the_next_one_resumes_them(
        self, jobs: JobRepository, script: object
    ) -> None:
        handler = Scripted(script)  # type: ignore[arg-type]
        job = await jobs.accept(a_request())
        async with running(a_worker(jobs, handler)):
            await handler.begun.wait()
        job = await jobs.get("ada", job.id)
        assert (job.status, job.errors, job.crashes, job.waiting_for) == (Status.PENDING, 0, 0, None)
        again = Scripted()
        async with running(a_worker(jobs, again)):
            assert (await ended(jobs, job.id)).status is Status.COMPLETED
        assert again.runs[0].claim.resumed

    async def test_a_job_that_ends_while_the_worker_drains_has_ended(self, jobs: JobRepository) -> None:
        async def script(context: JobContext) -> Ending:
            await asyncio.sleep(0.2)
            return Completed()

        handler = Scripted(script)
        job = await jobs.accept(a_request())
        async with running(a_worker(jobs, handler)):
            await handler.begun.wait()
        assert (await jobs.get("ada", job.id)).status is Status.COMPLETED

    async def test_a_cancelled_run_hands_its_jobs_back_too(self, jobs: JobRepository) -> None:
        handler = Scripted(deaf)
        job = await jobs.accept(a_request())
        task = asyncio.create_task(a_worker(jobs, handler).run(asyncio.Event()))
        await handler.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        job = await jobs.get("ada", job.id)
        assert (job.status, job.crashes) == (Status.PENDING, 0)


class TestLoop:
    async def test_a_notified_worker_starts_a_job_at_once_and_runs_as_many_as_it_has_slots(self, jobs: JobRepository) -> None:
        together = asyncio.Barrier(2)

        async def script(_: JobContext) -> Ending:
            await together.wait()
            return Completed()

        worker = a_worker(jobs, Scripted(script), job_settings(relay=60, slots=2))
        async with running(worker):
            made = [await jobs.accept(a_request()) for _ in range(4)]
            worker.notify()
            for job in made:
                assert (await ended(jobs, job.id)).status is Status.COMPLETED

    async def test_it_leaves_kinds_it_cannot_handle_to_others(self, jobs: JobRepository) -> None:
        foreign, mine = await jobs.accept(a_request(kind=JobKind.DELETE)), await jobs.accept(a_request())
        async with running(a_worker(jobs, Scripted())):
            await ended(jobs, mine.id)
        assert (await jobs.get("ada", foreign.id)).fence == 0

    async def test_a_dead_workers_job_restarts_within_lease_and_relay_on_an_idle_queue(self, jobs: JobRepository) -> None:
        job = await jobs.accept(a_request())
        assert await jobs.claim(job.id, OTHER) is not None  # and never heard of again
        began = time.monotonic()
        async with running(a_worker(jobs, Scripted())):
            assert (await ended(jobs, job.id)).crashes == 1
        assert time.monotonic() - began < 2 + 0.1 + 1 + 1  # lease, relay, a second, and the machine's breath

    async def test_a_job_longer_than_its_lease_runs_once(self, jobs: JobRepository) -> None:
        async def script(context: JobContext) -> Ending:
            await asyncio.sleep(3)
            return Completed()

        handler = Scripted(script)
        job = await jobs.accept(a_request())
        async with running(a_worker(jobs, handler)), running(a_worker(jobs, handler)):
            job = await ended(jobs, job.id)
        assert (len(handler.runs), job.crashes, job.fence) == (1, 0, 1)

    async def test_a_parked_job_goes_on_once_its_graph_steps_are_through(self, jobs: JobRepository, rows: Rows) -> None:
        async def script(context: JobContext) -> Ending:
            return Completed() if context.claim.resumed else Parked()

        job = await jobs.accept(a_request())
        task = await rows.graph_task(job.id)
        async with running(a_worker(jobs, Scripted(script))):
            await eventually(jobs, job.id, lambda job: job.parked)
            await rows.run("UPDATE graph_tasks SET status = 'done' WHERE id = :id", id=task)
            assert (await ended(jobs, job.id)).status is Status.COMPLETED

    async def test_it_sweeps(self, jobs: JobRepository, rows: Rows) -> None:
        job = await jobs.accept(a_request(needs=("gpu",)))
        await rows.make_late(job.id)
        async with running(a_worker(jobs, Scripted())):
            assert (await ended(jobs, job.id)).error_code == "job.deadline_exceeded"

    async def test_those_who_watch_see_progress_and_then_the_end(self, jobs: JobRepository) -> None:
        async def script(context: JobContext) -> Ending:
            await context.progress(stage=Stage.CONVERT, documents=1)
            return Completed()

        events = JobEvents()
        metered: list[Job] = []
        job = await jobs.accept(a_request())
        with events.subscribe(job.id) as subscription:
            async with running(a_worker(jobs, Scripted(script), events=events, observer=Observer(ended=metered.append))):
                seen = [event for _ in range(2) if (event := await subscription.next(5))]
        assert [(event.id, event.name, event.data["stage"]) for event in seen] == [("1-1", "progress", "convert"), ("1-2", "end", "done")]
        assert [done.id for done in metered] == [job.id]


class TestOutage:
    async def test_a_cut_connection_costs_nothing(self, jobs: JobRepository, outage: Outage) -> None:
        handler = Scripted(until_told)
        job = await jobs.accept(a_request())
        async with running(a_worker(jobs, handler)):
            await handler.begun.wait()
            async with outage():
                pass
            handler.script = complete
            await jobs.request_cancel("ada", job.id)
            assert (await ended(jobs, job.id)).crashes == 0
            other = await jobs.accept(a_request())
            assert (await ended(jobs, other.id)).status is Status.COMPLETED

    async def test_a_job_that_ends_during_an_outage_is_written_when_the_database_is_back(self, jobs: JobRepository, outage: Outage) -> None:
        finished = asyncio.Event()
        go = asyncio.Event()

        async def script(_: JobContext) -> Ending:
            await go.wait()
            finished.set()
            return Completed()

        handler = Scripted(script)
        job = await jobs.accept(a_request())
        async with running(a_worker(jobs, handler)):
            await handler.begun.wait()
            async with outage():
                go.set()
                await finished.wait()
            job = await ended(jobs, job.id)
        assert (job.status, job.fence) == (Status.COMPLETED, 1)

    async def test_a_job_whose_lease_could_not_be_renewed_stops_itself_and_is_handed_back(
        self, jobs: JobRepository, outage: Outage
    ) -> None:
        stopped = asyncio.Event()

        async def script(context: JobContext) -> Ending:
            if context.claim.resumed:
                return Completed()
            try:
                return await deaf(context)
            finally:
                stopped.set()

        handler = Scripted(script)
        job = await jobs.accept(a_request())
        async with running(a_worker(jobs, handler, job_settings(lease=0.8, heartbeat=0.2))):
            await handler.begun.wait()
            async with outage(), asyncio.timeout(5):
                await stopped.wait()
            job = await ended(jobs, job.id)
        assert (job.status, job.crashes, job.errors) == (Status.COMPLETED, 0, 0)

    async def test_a_worker_stops_cleanly_without_a_database_and_the_job_resumes_later(
        self, jobs: JobRepository, outage: Outage, rows: Rows
    ) -> None:
        handler = Scripted(deaf)
        job = await jobs.accept(a_request())
        async with contextlib.AsyncExitStack() as stack, running(a_worker(jobs, handler)):
            await handler.begun.wait()
            await stack.enter_async_context(outage())
        await rows.lapse(job.id)
        assert await jobs.claim_next(OTHER) is not None
