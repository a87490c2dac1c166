"""A clock that stands still until it is told, and sleeps that it ends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class Clock:
    """Seconds since an arbitrary moment, and the same as a time of day."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._start = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(seconds=self.now)
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    def time(self) -> datetime:
        return self._start + timedelta(seconds=self.now)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for at, sleeper in self._sleepers:
            if at <= self.now and not sleeper.done():
                sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, sleeper))
        await sleeper
