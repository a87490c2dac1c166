"""P4: a dead worker's job restarts within lease + relay + 1 s on an idle queue."""

from __future__ import annotations

import signal
import time

from shield.jobs.model import Status
from tests.integration.jobs.support import a_request
from tests.integration.promises.support import BREATH, Fleet, WorkerProcess, ended, runs, started, until


async def test_a_dead_workers_job_restarts_within_lease_and_relay_and_a_second(fleet: Fleet, dsn: str) -> None:
    async with fleet.running(fleet.relay()), WorkerProcess.started(dsn, fleet.valkey) as victim:
        job = await fleet.jobs.accept(a_request(spec={"sleep": 600}))
        await started(fleet, job.id)
        async with WorkerProcess.started(dsn, fleet.valkey):
            victim.signal(signal.SIGKILL)
            killed_at = time.monotonic()
            again = await until(lambda: fleet.jobs.get(None, job.id), lambda found: found.fence == 2)
            assert time.monotonic() - killed_at < 2 + 0.1 + 1 + BREATH
            job = await ended(fleet, job.id)
    assert (again.crashes, job.status, job.fence) == (1, Status.COMPLETED, 2)
    assert [fence for fence, _ in await runs(fleet, job.id)] == [2]
