"""P5: a live worker's long job never runs twice; a paused one is fenced."""

from __future__ import annotations

import asyncio
import signal

from shield.jobs.model import Status
from shield.worker.context import Completed, Ending, JobContext
from tests.integration.jobs.support import a_request
from tests.integration.promises.support import Fleet, WorkerProcess, ended, runs, started, until
from tests.integration.worker.support import Scripted


async def test_a_job_longer_than_its_lease_runs_once(fleet: Fleet) -> None:
    async def long(_: JobContext) -> Ending:
        await asyncio.sleep(2.5)
        return Completed()

    handler = Scripted(long)
    job = await fleet.jobs.accept(a_request())
    async with fleet.running(fleet.relay(), fleet.worker(handler), fleet.worker(handler)):
        job = await ended(fleet, job.id)
    assert (len(handler.runs), job.fence, job.crashes) == (1, 1, 0)


async def test_a_worker_that_was_paused_past_its_lease_writes_nothing_when_it_wakes(fleet: Fleet, dsn: str) -> None:
    async with fleet.running(fleet.relay()), WorkerProcess.started(dsn, fleet.valkey) as paused:
        job = await fleet.jobs.accept(a_request(spec={"sleep": 3, "always": True}))
        await started(fleet, job.id)
        paused.signal(signal.SIGSTOP)
        async with WorkerProcess.started(dsn, fleet.valkey) as other:
            await until(lambda: fleet.jobs.get(None, job.id), lambda found: found.fence == 2)
            paused.signal(signal.SIGCONT)
            job = await ended(fleet, job.id)
            paused.signal(signal.SIGTERM)
            assert await paused.ended() == 0  # it noticed, lived on, and now stops in good order
            other.signal(signal.SIGTERM)
            assert await other.ended() == 0
    assert (job.status, job.fence, job.crashes) == (Status.COMPLETED, 2, 1)
    assert [fence for fence, _ in await runs(fleet, job.id)] == [2]
    assert await fleet.registry.count() == 0
