"""What an open circuit costs: `make bench-breaker` prints the price of a refusal, what 100 000 of them retain, and the probes let out.

A refusal is timed as its caller sees it, exception and all, beside the price of a call that passes a closed circuit. Retained
is what the garbage collector and the allocator still hold afterwards. Exits with 1 when a promise is broken: refusal under 1 ms at p99 with
a `retry_after`, nothing retained, one probe of 1 000 callers when half-open.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc

from shield.errors import CircuitOpen, DependencyUnavailable
from shield.resilience import Breakers
from shield.settings import BreakerSettings

REFUSALS, CALLERS, SAMPLE = 100_000, 1_000, 20_000


class Clock:
    """A clock that moves when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def works() -> None:
    """A dependency that answers at once."""


async def fails() -> None:
    """A dependency that does not."""
    raise DependencyUnavailable(service="llm")


async def refused(breakers: Breakers) -> CircuitOpen:
    """One refused call."""
    try:
        await breakers.call("llm", works)
    except CircuitOpen as error:
        return error
    raise AssertionError("the circuit let a call through")


async def trip(breakers: Breakers, threshold: int) -> None:
    """Fail until the circuit is open."""
    for _ in range(threshold):
        try:
            await breakers.call("llm", fails)
        except DependencyUnavailable:
            continue


async def measure(breakers: Breakers, *, is_open: bool) -> list[float]:
    """Seconds of each of many calls, sorted."""
    took = []
    for _ in range(SAMPLE):
        begun = time.perf_counter()
        if is_open:
            await refused(breakers)
        else:
            await breakers.call("llm", works)
        took.append(time.perf_counter() - begun)
    return sorted(took)


async def retained(breakers: Breakers) -> tuple[int, int]:
    """Objects and bytes that are still there after many refusals."""
    for _ in range(1_000):
        await refused(breakers)
    gc.collect()
    tracemalloc.start()
    objects, (size, _) = len(gc.get_objects()), tracemalloc.get_traced_memory()
    for _ in range(REFUSALS):
        await refused(breakers)
    gc.collect()
    after, (size_after, _) = len(gc.get_objects()), tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - objects, size_after - size


async def probes(breakers: Breakers) -> int:
    """How many of many callers get through a half-open circuit."""
    out, over = 0, asyncio.Event()

    async def probe() -> None:
        nonlocal out
        out += 1
        await over.wait()

    callers = [asyncio.create_task(breakers.call("llm", probe)) for _ in range(CALLERS)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    over.set()
    await asyncio.gather(*callers, return_exceptions=True)
    return out


async def main() -> int:
    """Measure, print, judge."""
    clock, settings = Clock(), BreakerSettings()
    breakers = Breakers(settings, clock)
    closed = await measure(breakers, is_open=False)
    await trip(breakers, settings.threshold)
    opened = await measure(breakers, is_open=True)
    retry_after = (await refused(breakers)).retry_after
    objects, size = await retained(breakers)
    clock.now += settings.pause.total_seconds()
    let_out = await probes(breakers)
    for name, took in (("call through a closed circuit", closed), ("refusal of an open one", opened)):
        print(f"{name:32} p50 {took[SAMPLE // 2] * 1e6:6.1f} µs   p99 {took[SAMPLE * 99 // 100] * 1e6:6.1f} µs")
    print(f"{'retry_after of a refusal':32} {retry_after:.0f} s")
    print(f"retained over {REFUSALS:,} refusals     {objects} objects, {size} bytes")
    print(f"probes of {CALLERS:,} callers, half-open {let_out}")
    kept = (
        opened[SAMPLE * 99 // 100] < 1e-3
        and retry_after == settings.pause.total_seconds()
        and objects <= 10
        and size < 10_000
        and let_out == 1
    )
    print("kept" if kept else "BROKEN")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
