"""A worker of a fleet: what it says of itself, and that it begins nothing while its memory is full."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield import __version__
from shield.jobs.registry import WorkerInfo
from shield.worker import memory
from shield.worker.memory import Ceiling
from tests.integration.jobs.support import a_request
from tests.integration.promises.support import Fleet, ended, until
from tests.integration.worker.support import Scripted
from tests.peers.valkey import Valkey


@pytest.fixture
def fleet(engine: AsyncEngine, valkey: Valkey) -> Fleet:
    return Fleet(engine, valkey)


async def test_it_says_what_it_is_while_it_lives_and_leaves_no_trace(fleet: Fleet) -> None:
    worker = fleet.worker(offers=frozenset({"browser"}))
    async with fleet.running(worker):
        await fleet.registered(1)
        assert list(await fleet.registry.live()) == [WorkerInfo(worker.id, 2, frozenset({"browser"}), __version__)]
    assert await fleet.registry.count() == 0


async def test_while_its_memory_is_full_it_offers_no_slot_and_begins_no_job(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY", 0.05)
    used = [200]

    async def recycle() -> None:
        """There is nothing to give back."""

    full, handler = Ceiling(100, recycle, measure=lambda: used[0]), Scripted()
    job = await fleet.jobs.accept(a_request())
    async with fleet.running(fleet.relay(), fleet.worker(handler, ceiling=full)):
        await until(fleet.registry.slots, lambda slots: slots == 0)
        await fleet.hinted()
        assert handler.runs == []
        used[0] = 50
        await ended(fleet, job.id)
        await until(fleet.registry.slots, lambda slots: slots == 2)
