"""P1 and P10: Redis may be lost at any time, with all its data, and so may a relay; accepting and running go on."""

from __future__ import annotations

import pytest

from shield.jobs.choice import Out
from shield.jobs.model import Status
from tests.integration.jobs.support import a_request, job_settings
from tests.integration.promises.support import Fleet, ended, until
from tests.integration.worker.support import Scripted
from tests.peers.valkey import Valkey


@pytest.fixture
def fleet(fleet: Fleet) -> Fleet:
    """One principal may run everything at once."""
    return Fleet(fleet.engine, fleet.valkey, job_settings(max_running_principal=100))


async def outcome(fleet: Fleet) -> list[tuple[str, int, int]]:
    """(status, most claims of a job, jobs) of all jobs."""
    rows = await fleet.rows.run("SELECT status, max(fence), count(*) FROM jobs GROUP BY status")
    return [tuple(row) for row in rows]


async def test_redis_loses_all_its_data_with_fifty_jobs_waiting_and_all_run_once(fleet: Fleet, valkey: Valkey) -> None:
    await fleet.many(50)
    async with fleet.running(fleet.relay(), fleet.relay()):
        await fleet.hinted()
        valkey.wipe()
        async with fleet.running(fleet.worker(), fleet.worker()):
            await fleet.settled(25)
            valkey.wipe()
            await fleet.settled()
    assert await outcome(fleet) == [("completed", 1, 50)]


async def test_with_redis_down_jobs_are_accepted_and_run_and_hints_are_used_again_when_it_is_back(fleet: Fleet, valkey: Valkey) -> None:
    worker, handler = fleet.worker(), Scripted()
    async with fleet.running(fleet.relay(), worker, fleet.worker(handler)):
        await fleet.registered(2)
        valkey.kill()
        for _ in range(3):
            job = await fleet.jobs.accept(a_request())
            assert (await ended(fleet, job.id)).status is Status.COMPLETED
        valkey.start()
        await fleet.back(worker)
        job = await fleet.jobs.accept(a_request())
        assert (await ended(fleet, job.id)).status is Status.COMPLETED
    assert await outcome(fleet) == [("completed", 1, 4)]


async def test_a_redis_that_hangs_stops_nobody(fleet: Fleet, valkey: Valkey) -> None:
    async with fleet.running(fleet.relay(), fleet.worker()):
        await fleet.registered(1)
        valkey.pause()
        try:
            job = await fleet.jobs.accept(a_request())
            assert (await ended(fleet, job.id)).status is Status.COMPLETED
        finally:
            valkey.resume()


async def test_jobs_of_a_relay_that_was_killed_between_commit_and_publication_run(fleet: Fleet) -> None:
    await fleet.many(3)
    stamped = await fleet.jobs.choose(Out(), regular=True, published_before=0)
    assert stamped is not None
    assert stamped.jobs
    async with fleet.running(fleet.relay(), fleet.worker()):
        await fleet.settled()
    assert await outcome(fleet) == [("completed", 1, 3)]


async def test_without_any_relay_workers_find_the_jobs_themselves(fleet: Fleet) -> None:
    await fleet.many(2)
    async with fleet.running(fleet.worker(settings=job_settings(lease=0.5, heartbeat=0.1))):
        await fleet.settled()
    assert await outcome(fleet) == [("completed", 1, 2)]


async def test_a_stopping_worker_leaves_its_hints_to_the_others(fleet: Fleet, valkey: Valkey) -> None:
    """Its part of P1: what it read and did not follow is not lost for a lease."""
    async with fleet.running(fleet.worker()):
        await fleet.registered(1)
    with valkey.client() as client:
        assert client.xinfo_groups("shield:jobs:normal")[0]["consumers"] == 0
    assert await fleet.registry.count() == 0


async def test_a_hint_that_its_worker_cannot_follow_reaches_one_that_can(fleet: Fleet) -> None:
    able, unable = Scripted(), Scripted()
    async with fleet.running(fleet.relay(), *(fleet.worker(unable) for _ in range(3)), fleet.worker(able, offers=frozenset({"browser"}))):
        await fleet.registered(4)
        await fleet.many(3, needs="{browser}")
        await fleet.settled()
    assert (len(able.runs), len(unable.runs)) == (3, 0)
    assert await until(fleet.registry.count, lambda found: found == 0) == 0
