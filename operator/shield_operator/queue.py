"""The work queue: every key that was added is worked on at least once more, one run a key at a time.

The semantics are those of Kubernetes' own work queue. A key that is added while it waits is not added twice; one that is added while it is
worked on comes again afterwards. A failure brings the key back after an exponentially growing pause with jitter, success forgets the
failures. A key may be asked for at a later time; of several times the earliest counts. So a handler of events may add keys as often as it
likes, and a reconcile that looks at the present state misses nothing.

An exception may carry `cause`, a word for the metrics that also says that it was foreseen, and `retry_after`, the least pause in seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from shield_operator.metrics import Metrics

log = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Result:
    """How a reconcile went: done until something changes, or to be looked at again."""

    after: float | None = None
    """Look again in that many seconds."""


DONE = Result()


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses after failures, in seconds: `base` doubled with each failure up to `most`, then up to a fifth shorter by chance."""

    base: float = 0.01
    most: float = 60.0

    def pause(self, failures: int, chance: float) -> float:
        """After that many failures in a row, from 1; `chance` is of [0, 1)."""
        return float(min(self.most, self.base * 2 ** min(failures - 1, 40)) * (1 - 0.2 * chance))


class WorkQueue(Generic[K]):
    """Keys that wait for work. Not thread-safe: it belongs to one event loop."""

    def __init__(
        self,
        name: str,
        metrics: Metrics,
        backoff: Backoff | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._metrics = metrics
        self._told = metrics.queue(name)
        self._told.watch(lambda: len(self._waiting), self._unfinished, self._longest)
        self._backoff = backoff or Backoff()
        self._clock, self._chance = clock, chance
        self._waiting: deque[K] = deque()
        self._wanted: dict[K, float] = {}  # to be worked on (again), since when
        self._running: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._number = itertools.count()
        self._idle: deque[asyncio.Future[None]] = deque()  # workers that wait for a key, each woken by itself
        self._planned = asyncio.Event()
        self._closed = False
        self._settled = asyncio.Event()
        self._settled.set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._wanted and not self._running

    def add(self, key: K) -> None:
        """Work on the key (once more)."""
        if key in self._wanted or self._closed:
            return
        self._told.added()
        self._wanted[key] = self._clock()
        if key not in self._running:
            self._waiting.append(key)
            self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on the key in that many seconds, or earlier if an earlier time was asked for."""
        if seconds <= 0:
            self.add(key)
            return
        at = self._clock() + seconds
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            heapq.heappush(self._heap, (at, next(self._number), key))
            self._planned.set()

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Work on the key again after the pause that its failures in a row ask for; tells the pause."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._told.retried()
        pause = max(at_least, self._backoff.pause(failures, self._chance()))
        self.add_after(key, pause)
        return pause

    def forget(self, key: K) -> None:
        """The key's failures are over."""
        self._failures.pop(key, None)

    def promote(self) -> float | None:
        """Add the keys whose time has come; tells the seconds to the next one."""
        now = self._clock()
        while self._heap:
            at, _, key = self._heap[0]
            if self._due.get(key) != at:  # an earlier time was asked for later
                heapq.heappop(self._heap)
            elif at <= now:
                heapq.heappop(self._heap)
                del self._due[key]
                self.add(key)
            else:
                return at - now
        return None

    def take(self) -> K | None:
        """The next key, now running; None if none waits."""
        if not self._waiting:
            return None
        key = self._waiting.popleft()
        now = self._clock()
        self._told.taken(now - self._wanted.pop(key))
        self._running[key] = now
        self._settled.clear()
        return key

    def done(self, key: K) -> None:
        """The work on the key is over; if it was added meanwhile, it waits again."""
        self._told.done(self._clock() - self._running.pop(key))
        if not self._running:
            self._settled.set()
        if key in self._wanted:
            self._waiting.append(key)
            self._wake()

    def close(self) -> None:
        """Take no more keys: `run` returns when what runs is over."""
        self._closed = True
        while self._idle:
            self._wake()
        self._planned.set()

    async def settled(self) -> None:
        """Wait until nothing runs."""
        await self._settled.wait()

    async def run(self, workers: int, work: Callable[[K], Awaitable[Result]], *, limit: float) -> None:
        """Work on keys, `workers` at once and each at most `limit` seconds, until closed."""
        self._metrics.reconcile_workers.labels(self.name).set(workers)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._promote_in_time())
            for _ in range(workers):
                tasks.create_task(self._worker(work, limit))

    async def _promote_in_time(self) -> None:
        while not self._closed:
            wait = self.promote()
            self._planned.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._planned.wait()

    async def _worker(self, work: Callable[[K], Awaitable[Result]], limit: float) -> None:
        while not self._closed:
            key = self.take()
            if key is None:
                await self._key()
                continue
            try:
                with self._metrics.active_workers.labels(self.name).track_inprogress():
                    await self._work_on(key, work, limit)
            finally:
                self.done(key)

    async def _key(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        await waiter

    def _wake(self) -> None:
        """One worker that waits, if any does."""
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _work_on(self, key: K, work: Callable[[K], Awaitable[Result]], limit: float) -> None:
        try:
            with self._metrics.reconcile_time.labels(self.name).time():
                async with asyncio.timeout(limit):
                    result = await work(key)
        except Exception as error:  # noqa: BLE001  # the boundary of a reconcile: whatever failed, the key comes again
            self._failed(key, error)
            return
        self.forget(key)
        self._metrics.reconciles.labels(self.name, "success" if result.after is None else "requeue_after").inc()
        if result.after is not None:
            self.add_after(key, result.after)

    def _failed(self, key: K, error: Exception) -> None:
        self._metrics.reconciles.labels(self.name, "error").inc()
        self._metrics.reconcile_errors.labels(self.name).inc()
        cause: str = getattr(error, "cause", "timeout" if isinstance(error, TimeoutError) else "bug")
        self._metrics.error_causes.labels(self.name, cause).inc()
        pause = self.retry(key, getattr(error, "retry_after", None) or 0.0)
        known = cause != "bug"
        log.log(30 if known else 40, "reconcile.failed", queue=self.name, key=str(key), cause=cause, error=str(error) or repr(error),
                again_in=round(pause, 3), exc_info=None if known else error)  # fmt: skip

    def _unfinished(self) -> float:
        now = self._clock()
        return sum(now - since for since in self._running.values())

    def _longest(self) -> float:
        return self._clock() - min(self._running.values(), default=self._clock())
