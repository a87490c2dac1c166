"""The registry: who lives counts, who was not seen for a lease does not."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.jobs.model import WorkerId
from shield.jobs.registry import WorkerInfo, Workers
from tests.integration.jobs.support import Rows, job_settings

ADA = WorkerInfo(WorkerId("ada"), 2, frozenset(), "1.0")
BOB = WorkerInfo(WorkerId("bob"), 3, frozenset({"browser", "ocr"}), "1.1")
POD = WorkerInfo(WorkerId("pod"), 1, frozenset({"gpu"}), "1.1", runner="ingestjob:7")


@pytest.fixture
async def workers(engine: AsyncEngine) -> Workers:
    workers = Workers(engine, job_settings())
    for worker in (ADA, BOB, POD):
        await workers.announce(worker)
    return workers


async def test_live_workers_are_counted_by_runner(workers: Workers) -> None:
    assert list(await workers.live()) == [ADA, BOB]
    assert (await workers.count(), await workers.slots(), await workers.offers()) == (2, 5, frozenset({"browser", "ocr"}))
    assert await workers.live("ingestjob:7") == [POD]


async def test_a_worker_that_is_not_seen_for_a_lease_is_dead_and_one_that_is_seen_again_lives(workers: Workers, rows: Rows) -> None:
    await rows.run("UPDATE workers SET seen_at = now() - interval '3 s' WHERE id = 'bob'")
    assert await workers.live() == [ADA]
    await workers.announce(BOB)
    assert await workers.count() == 2


async def test_a_worker_says_how_many_slots_it_has_now_and_leaves(workers: Workers) -> None:
    await workers.announce(WorkerInfo(ADA.id, 0, ADA.offers, ADA.version))
    assert await workers.slots() == 3
    await workers.leave(ADA.id)
    assert await workers.live() == [BOB]


async def test_the_dead_are_forgotten_in_the_end(workers: Workers, rows: Rows) -> None:
    await rows.run("UPDATE workers SET seen_at = now() - interval '1 hour' WHERE id = 'ada'")
    assert await workers.forget_dead() == 1
    assert [row[0] for row in await rows.run("SELECT id FROM workers ORDER BY id")] == ["bob", "pod"]
