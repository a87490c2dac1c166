"""The ceiling: no job above it, idle children go, and it says so once."""

from __future__ import annotations

import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from shield.worker import memory
from shield.worker.memory import Ceiling, resident

pytestmark = pytest.mark.usefixtures("each_time")


@pytest.fixture
def each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure with every question."""
    monkeypatch.setattr(memory, "EVERY", 0.0)


class Machine:
    """Memory that recycling gives some of back."""

    def __init__(self, used: int, children: int = 0) -> None:
        self.used, self.children, self.recycled = used, children, 0
        self.seen: list[tuple[int, bool]] = []

    async def recycle(self) -> None:
        self.recycled += 1
        self.children = 0

    def ceiling(self, limit: int) -> Ceiling:
        return Ceiling(limit, self.recycle, measure=lambda: self.used + self.children, observed=lambda *seen: self.seen.append(seen))


async def test_below_the_ceiling_jobs_are_begun_and_nothing_is_recycled() -> None:
    machine = Machine(used=99)
    assert await machine.ceiling(100).allows_another()
    assert (machine.recycled, machine.seen) == (0, [(99, False)])


async def test_idle_children_go_first_and_if_that_is_enough_work_goes_on() -> None:
    machine = Machine(used=90, children=20)
    assert await machine.ceiling(100).allows_another()
    assert (machine.recycled, machine.seen) == (1, [(110, True), (90, False)])


async def test_no_job_is_begun_until_memory_has_shrunk_and_it_is_said_once() -> None:
    machine = Machine(used=120)
    ceiling = machine.ceiling(100)
    with capture_logs() as logs:
        assert [await ceiling.allows_another() for _ in range(3)] == [False, False, False]
        assert ceiling.above
        machine.used = 80
        assert await ceiling.allows_another()
        assert await ceiling.allows_another()
    assert [entry["event"] for entry in logs] == ["worker.memory_full", "worker.memory_back"]


async def test_without_a_ceiling_everything_is_allowed() -> None:
    assert await Machine(used=2**40).ceiling(0).allows_another()


async def test_between_two_measurements_the_last_one_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY", 60.0)
    machine = Machine(used=120)
    ceiling = machine.ceiling(100)
    assert not await ceiling.allows_another()
    machine.used = 0
    assert not await ceiling.allows_another()


def test_children_count() -> None:
    before = resident()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert resident() > before
        assert child.stdin is not None
        child.stdin.close()
