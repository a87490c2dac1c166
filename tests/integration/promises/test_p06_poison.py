"""P6: a job that takes its worker down is given up after its budget, and is found in the dead-letter list."""

from __future__ import annotations

import signal

from shield.jobs.model import Status
from tests.integration.jobs.support import a_request
from tests.integration.promises.support import Fleet, WorkerProcess, ended, runs


async def test_a_job_that_kills_its_worker_is_given_up_after_as_many_as_it_may_and_harms_no_other(fleet: Fleet, dsn: str) -> None:
    poison = await fleet.jobs.accept(a_request(spec={"die": True}))
    await fleet.rows.run("UPDATE jobs SET max_crashes = 2")
    async with fleet.running(fleet.relay()):
        for _ in range(2):
            async with WorkerProcess.started(dsn, fleet.valkey, ready=False) as worker:
                assert await worker.ended() == -signal.SIGKILL
        dead = await ended(fleet, poison.id)
        async with fleet.running(fleet.worker()):
            assert (await ended(fleet, (await fleet.jobs.accept(a_request())).id)).status is Status.COMPLETED
    assert (dead.status, dead.error_code, dead.crashes, dead.fence) == (Status.FAILED, "job.retries_exhausted", 2, 2)
    assert await runs(fleet, poison.id) == []
    page = await fleet.jobs.list("ada", status=Status.FAILED, code="job.retries_exhausted")
    assert [job.id for job in page.jobs] == [poison.id]
    assert (await fleet.jobs.list("ada", status=Status.FAILED, code="job.nothing_ingested")).jobs == []
