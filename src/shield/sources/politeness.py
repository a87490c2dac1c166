"""Politeness: how often one process may knock at a host, whatever the number of jobs.

A turn is the right to one request. Turns of one host start at least `delay` apart (250 ms, or what robots.txt asks for), at
most `per_host` of them are open at once, and at most `concurrency` in the whole process. Turns are handed out in the order
asked for within a host, and round-robin between hosts, because a host queues for the process-wide slots with one request at a
time. A host that answered Retry-After rests for everybody. The clock is a port, so that all of this is tested without waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from shield.settings import CrawlSettings


class Clock(Protocol):
    """Monotonic seconds, and waiting for them."""

    def now(self) -> float:
        """Seconds since some fixed moment."""

    async def sleep(self, seconds: float) -> None:
        """Come back after that long."""


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Come back after that long."""
        await asyncio.sleep(seconds)


@dataclass
class _Host:
    slots: asyncio.Semaphore
    starting: asyncio.Lock
    next_start: float
    users: int = 0


class Politeness:
    """Hands out turns; one a process."""

    _FORGET_ABOVE = 1000  # hosts remembered before idle ones are dropped

    def __init__(self, settings: CrawlSettings, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self._delay = settings.per_host_delay
        self._per_host = settings.per_host
        self._all = asyncio.Semaphore(settings.concurrency)
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def turn(self, host: str, delay: timedelta | None = None) -> AsyncIterator[None]:
        """One request to `host`; the next one starts at least `delay` (or the default, if longer) after this one."""
        state = self._host(host)
        state.users += 1
        try:
            async with state.slots:
                async with state.starting:
                    await self._rest(state)
                    await self._all.acquire()
                    state.next_start = self.clock.now() + max(self._delay, delay or self._delay).total_seconds()
                try:
                    yield
                finally:
                    self._all.release()
        finally:
            state.users -= 1
            self._forget()

    def pause(self, host: str, duration: timedelta) -> None:
        """Let nobody start a request to `host` for that long."""
        state = self._host(host)
        state.next_start = max(state.next_start, self.clock.now() + duration.total_seconds())

    async def _rest(self, state: _Host) -> None:
        while (wait := state.next_start - self.clock.now()) > 0:  # again: a pause may come while we sleep
            await self.clock.sleep(wait)

    def _host(self, host: str) -> _Host:
        if host not in self._hosts:
            self._hosts[host] = _Host(asyncio.Semaphore(self._per_host), asyncio.Lock(), self.clock.now())
        return self._hosts[host]

    def _forget(self) -> None:
        if len(self._hosts) > self._FORGET_ABOVE:
            now = self.clock.now()
            self._hosts = {name: host for name, host in self._hosts.items() if host.users or host.next_start > now}
