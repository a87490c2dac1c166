"""An IngestJob that ended while the orchestrator was away: its verdict stands, its numbers are told when there is somebody to tell them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shield_operator.cluster import INGESTJOBS, Obj
from shield_operator.queue import Result
from tests.unit.operator.ingestjobs.world import KEY, World


@pytest.fixture
async def world() -> World:
    """One that showed 8 of 20 documents, lost sight of the orchestrator, and completed."""
    world = World()
    world.ingestjob()
    await world.reconcile()
    world.row("processing", stage="acquire", progress={"documents": 8})
    await world.operator.follow()
    await world.reconcile()
    world.orchestrator.away = True
    world.job_ends("Complete")
    world.now += timedelta(seconds=31)
    assert await world.reconcile() == Result(0)
    await world.reconcile()
    assert (world.says()["Complete"], documents(world)) == ("True Completed", 8)
    world.row("completed", outcome="complete", stage="done", progress={"documents": 20})
    world.drain()
    return world


def documents(world: World) -> int:
    progress: Obj = world.subject["status"]["progress"]
    count: int = progress["documents"]
    return count


async def look(world: World) -> bool:
    """The operator asks; whether that brought the IngestJob back into the queue, where it is reconciled."""
    world.drain()
    await world.operator.follow()
    if KEY not in world.operator.queue._wanted:
        return False
    await world.reconcile()
    return True


async def test_its_numbers_are_told_when_the_orchestrator_is_back(world: World) -> None:
    assert not await look(world)
    world.orchestrator.away = False
    assert await look(world)
    assert documents(world) == 20
    assert (world.subject["status"]["outcome"], world.says()["Complete"]) == ("complete", "True Completed")


async def test_and_then_nobody_asks_again(world: World) -> None:
    world.orchestrator.away = False
    await look(world)
    calls = world.orchestrator.calls
    assert not await look(world)
    assert world.orchestrator.calls == calls


async def test_a_row_that_still_runs_is_asked_about_again_and_not_told(world: World) -> None:
    world.orchestrator.away = False
    world.row("processing", stage="store", progress={"documents": 15})
    await look(world)
    assert documents(world) == 8
    world.row("completed", outcome="complete", progress={"documents": 20})
    assert await look(world)
    assert documents(world) == 20


async def test_an_ingestjob_without_a_row_is_not_asked_about_for_ever(world: World) -> None:
    world.orchestrator.away = False
    world.orchestrator.rows.clear()
    await look(world)
    calls = world.orchestrator.calls
    assert not await look(world)
    assert world.orchestrator.calls == calls


async def test_after_the_time_to_remember_rows_nobody_asks(world: World) -> None:
    world.now += timedelta(seconds=world.settings.row_memory)
    world.orchestrator.away = False
    calls = world.orchestrator.calls
    assert not await look(world)
    assert world.orchestrator.calls == calls


async def test_an_operator_that_starts_anew_asks_too(world: World) -> None:
    world.restart()
    world.orchestrator.away = False
    await world.reconcile()
    assert await look(world)
    assert documents(world) == 20


async def test_a_deleted_one_is_forgotten(world: World) -> None:
    world.cluster.remove(INGESTJOBS, KEY.name)
    world.orchestrator.away = False
    calls = world.orchestrator.calls
    assert not await look(world)
    assert world.orchestrator.calls == calls
