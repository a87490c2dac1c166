"""Spacing and limits, on a clock that only moves when everybody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from shield.settings import CrawlSettings
from shield.sources.politeness import Politeness, SystemClock


class FakeClock:
    def __init__(self) -> None:
        self.time = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.time + seconds, wake))
        await wake

    async def run(self, *work: Awaitable[None]) -> None:
        """Let everything run; whenever nothing can, move on to the next wake-up."""
        everything = asyncio.gather(*work)
        while not everything.done():
            for _ in range(50):
                await asyncio.sleep(0)
            if self._sleepers and not everything.done():
                self._sleepers.sort(key=lambda sleeper: sleeper[0])
                self.time, wake = self._sleepers.pop(0)
                if not wake.cancelled():
                    wake.set_result(None)
        await everything


class Bench:
    """Requests that take `duration`, and when each began and how many ran."""

    def __init__(self, *, duration: float = 0.0, **settings: float) -> None:
        self.clock = FakeClock()
        self.politeness = Politeness(CrawlSettings.model_validate(settings), self.clock)
        self.starts: list[tuple[str, float]] = []
        self.running: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self._duration = duration

    async def request(self, host: str, delay: timedelta | None = None) -> None:
        async with self.politeness.turn(host, delay):
            self.starts.append((host, self.clock.now()))
            for name in (host, "all"):
                self.running[name] = self.running.get(name, 0) + 1
                self.most[name] = max(self.most.get(name, 0), self.running[name])
            await self.clock.sleep(self._duration)
            for name in (host, "all"):
                self.running[name] -= 1

    def times(self, host: str) -> list[float]:
        return [round(at, 6) for name, at in self.starts if name == host]


async def test_requests_to_one_host_start_a_quarter_of_a_second_apart() -> None:
    bench = Bench()
    await bench.clock.run(*(bench.request("a") for _ in range(5)))
    assert bench.times("a") == [0, 0.25, 0.5, 0.75, 1.0]


async def test_hosts_do_not_wait_for_each_other() -> None:
    bench = Bench()
    await bench.clock.run(*(bench.request(host) for host in "abab"))
    assert bench.times("a") == bench.times("b") == [0, 0.25]


async def test_a_crawl_delay_spaces_further_and_never_closer() -> None:
    bench = Bench()
    await bench.clock.run(*(bench.request("a", timedelta(seconds=3)) for _ in range(3)))
    assert bench.times("a") == [0, 3, 6]
    bench = Bench()
    await bench.clock.run(*(bench.request("a", timedelta(0)) for _ in range(3)))
    assert bench.times("a") == [0, 0.25, 0.5]


async def test_at_most_two_requests_a_host_and_eight_in_all_are_open() -> None:
    bench = Bench(duration=10, per_host_delay=0)
    await bench.clock.run(*(bench.request(f"h{n % 6}") for n in range(60)))
    assert bench.most["h0"] == 2
    assert bench.most["all"] == 8
    assert len(bench.starts) == 60


async def test_within_a_host_turns_go_in_the_order_asked_for() -> None:
    bench, order = Bench(duration=0.1), []

    async def numbered(number: int) -> None:
        async with bench.politeness.turn("a"):
            order.append(number)
            await bench.clock.sleep(0.3)

    await bench.clock.run(*(numbered(n) for n in range(10)))
    assert order == list(range(10))


async def test_a_host_with_many_requests_does_not_starve_another() -> None:
    bench = Bench(duration=1, per_host_delay=0, concurrency=2, per_host=2)
    await bench.clock.run(*(bench.request("many") for _ in range(50)), bench.request("few"))
    assert bench.times("few")[0] <= 1


async def test_a_host_that_asked_for_a_pause_rests_for_everybody_also_while_they_wait() -> None:
    bench = Bench()

    async def asks_for_a_pause() -> None:
        async with bench.politeness.turn("a"):
            bench.politeness.pause("a", timedelta(seconds=60))

    await bench.clock.run(asks_for_a_pause(), bench.request("a"), bench.request("a"), bench.request("b"))
    assert bench.times("a") == [60, 60.25]
    assert bench.times("b") == [0]


@pytest.mark.parametrize("moment", range(4))
async def test_a_cancelled_request_gives_everything_back(moment: int) -> None:
    bench = Bench(duration=1, concurrency=1, per_host=1)
    tasks = [asyncio.create_task(bench.request("a")) for _ in range(3)]
    for _ in range(moment):
        await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[0].cancel()

    async def rest() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks[:2])
        await tasks[2]
        await bench.request("b")

    await bench.clock.run(rest())
    assert [host for host, _ in bench.starts][-2:] == ["a", "b"]


async def test_idle_hosts_are_forgotten_and_resting_ones_are_not() -> None:
    bench = Bench(per_host_delay=0)
    bench.politeness.pause("resting", timedelta(seconds=10**6))
    requests: list[Callable[[], Awaitable[None]]] = [lambda n=n: bench.request(f"h{n}") for n in range(1200)]  # type: ignore[misc]
    await bench.clock.run(*(one() for one in requests))
    assert len(bench.politeness._hosts) <= 1001
    assert "resting" in bench.politeness._hosts


async def test_the_systems_clock_moves() -> None:
    clock = SystemClock()
    before = clock.now()
    await clock.sleep(0.001)
    assert clock.now() > before
