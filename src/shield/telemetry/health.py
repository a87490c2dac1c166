"""Whether a process is alive and ready, told to a thread that answers even when the event loop does not.

The loop writes the time into its heartbeat every fraction of a second. Whoever reads it from another thread sees how far the loop lags
behind: a loop that hangs stops writing, and above a limit the process does not count as alive any more. Readiness is the process's own
word: the names of what it still waits for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

_MOST_OFTEN = 0.25
"""Seconds between two beats; less where the limit is small."""


class Heartbeat:
    """The pulse of one event loop.

    Args:
        limit: lag above which the loop counts as hung.
        clock: monotonic seconds.
    """

    def __init__(self, limit: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit.total_seconds()
        self._every = max(0.01, min(_MOST_OFTEN, self._limit / 4))
        self._clock = clock
        self._beat_at = clock()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Beat from now on, in the running loop, until `stop`."""
        self._beat_at = self._clock()
        self._timer = asyncio.get_running_loop().call_later(self._every, self.start)

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def lag(self) -> float:
        """Seconds that the loop lags behind now. Safe to call from any thread."""
        return max(0.0, self._clock() - self._beat_at - self._every)

    @property
    def alive(self) -> bool:
        """Whether the lag is within the limit. Safe to call from any thread."""
        return self.lag() <= self._limit


def _nothing() -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Health:
    """What `/livez` and `/readyz` of the metrics port tell."""

    heartbeat: Heartbeat
    waits_for: Callable[[], Sequence[str]] = field(default=_nothing)
    """Names what the process waits for before it is ready; called from the answering thread, must neither block nor fail."""
