"""Turns in a fleet: a newcomer starts soon behind a crowd, and low priority does not starve. The order is that of `turn`."""

from __future__ import annotations

import asyncio

from shield.jobs.model import Priority
from shield.worker.context import Completed, Ending, JobContext
from tests.integration.jobs.support import a_request, job_settings
from tests.integration.promises.support import Fleet, ended
from tests.integration.worker.support import Scripted

WORKERS = 4


async def short(_: JobContext) -> Ending:
    await asyncio.sleep(0.02)
    return Completed()


async def test_with_a_thousand_jobs_before_it_a_newcomer_starts_within_twice_as_many_starts_as_there_are_workers(fleet: Fleet) -> None:
    crowd = Fleet(fleet.engine, fleet.valkey, job_settings(max_running_principal=100))
    await crowd.many(1000, principal="ada")
    relay = crowd.relay()
    async with crowd.running(relay, *(crowd.worker(Scripted(short)) for _ in range(WORKERS))):
        await crowd.registered(WORKERS)
        await crowd.settled(980)
        for principal in ("bob", "eve"):
            job = await crowd.jobs.accept(a_request(principal=principal))
            ((so_far,),) = await crowd.rows.run("SELECT last_value FROM jobs_turn")
            relay.notify()
            await ended(crowd, job.id)
            assert await crowd.rows.value("turn", job.id) - so_far <= 2 * WORKERS
        await crowd.rows.run("DELETE FROM jobs WHERE status = 'pending'")


async def test_low_priority_gets_its_tenth_of_the_starts_while_high_keeps_coming(fleet: Fleet) -> None:
    crowd = Fleet(fleet.engine, fleet.valkey, job_settings(max_running_principal=100, slots=1))
    await crowd.many(100, priority="high")
    await crowd.many(5, priority="low")
    async with crowd.running(crowd.relay(), crowd.worker(), crowd.worker()):
        await crowd.settled(30)
        await crowd.rows.run("DELETE FROM jobs WHERE status = 'pending'")
    starts = [
        row[0] for row in await crowd.rows.run("SELECT priority FROM jobs WHERE turn IS NOT NULL AND status = 'completed' ORDER BY turn")
    ]
    assert starts[:3] == [Priority.HIGH] * 3
    assert 4 <= starts[:70].count(Priority.LOW) <= 5
