"""How many Jobs: so many a second, and so many at once in a namespace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from shield_operator.cluster import Key


class Bucket:
    """A token bucket: `rate` a second in the long run, `burst` at once. Turns are given in the order of asking."""

    def __init__(
        self,
        rate: float,
        burst: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate, self._burst = rate, burst
        self._clock, self._sleep = clock, sleep
        self._tokens = float(burst)
        self._at = clock()

    async def take(self) -> float:
        """Wait for a turn; tells how long that was, in seconds."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        wait = max(0.0, -self._tokens / self._rate)
        if wait:
            await self._sleep(wait)
        return wait


class Places:
    """Unfinished Jobs by namespace, and who waits for one to end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[str, set[str]] = {}
        self._waiting: dict[str, dict[Key, None]] = {}

    def reserve(self, key: Key) -> bool:
        """Take a place for a Job that is about to be made; False if there is none, and the key then waits for one."""
        if not self._most:
            return True
        taken = self._taken.setdefault(key.namespace, set())
        if len(taken) >= self._most and str(key) not in taken:
            self._waiting.setdefault(key.namespace, {})[key] = None
            return False
        taken.add(str(key))
        return True

    def release(self, key: Key) -> None:
        """The Job was not made, or is known as one that runs."""
        if self._most:
            self._taken.get(key.namespace, set()).discard(str(key))

    def job(self, namespace: str, uid: str, *, runs: bool) -> Key | None:
        """A Job was made, or ended; tells whose turn it is."""
        if not self._most:
            return None
        taken = self._taken.setdefault(namespace, set())
        if runs:
            taken.add(uid)
            return None
        if uid not in taken:
            return None
        taken.discard(uid)
        waiting = self._waiting.get(namespace)
        if not waiting:
            return None
        key = next(iter(waiting))
        del waiting[key]
        return key
