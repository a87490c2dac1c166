"""A ceiling on memory: above it a worker begins no job until it has shrunk, and lets its idle children go.

What is measured is the resident memory of the process, and what its children hold beyond the files they have in memory: the dozen
processes of a browser share one program of 300 MB, which would otherwise count a dozen times. Other pages that they share are counted
once for each, so the ceiling errs on the safe side. Running jobs are never touched. A worker that stays above its ceiling without running
anything says so again and again: it needs a higher ceiling, or it leaks and wants to be started again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from shield.settings import MiB

log = structlog.get_logger(__name__)

EVERY = 1.0
"""Seconds between two measurements: each reads the process table."""
EVERY_UNBOUND = 15.0
"""The same where there is no ceiling, and the figure is for the metrics only."""
REMIND = 60.0
"""Seconds between two reminders that memory is full."""


def resident() -> int:
    """Resident memory of this process, and of its children without files, in bytes."""
    import psutil

    own = psutil.Process()
    total: int = own.memory_info().rss
    for child in own.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            memory = child.memory_info()
            total += memory.rss - memory.shared
    return total


class Ceiling:
    """Says whether there is memory for another job.

    Args:
        limit: bytes; 0 = no ceiling.
        recycle: ends idle children (converter, graph); called when the ceiling is reached and again while it is passed.
        measure: bytes in use.
        observed: told each measurement, and whether it is above, for metrics.
    """

    def __init__(
        self,
        limit: int,
        recycle: Callable[[], Awaitable[object]],
        *,
        measure: Callable[[], int] = resident,
        observed: Callable[[int, bool], None] = lambda _bytes, _above: None,
    ) -> None:
        self._limit = limit
        self._recycle = recycle
        self._measure = measure
        self._observed = observed
        self._measured_at = self._reminded_at = float("-inf")
        self._bytes = 0
        self.above = False
        """Whether the last measurement was above the ceiling."""

    async def allows_another(self) -> bool:
        """Whether a job may be begun; measures now and then."""
        now = asyncio.get_running_loop().time()
        if now - self._measured_at >= (EVERY if self._limit else EVERY_UNBOUND):
            self._measured_at = now
            if await self._is_above():
                await self._recycle()
                await self._is_above()
            self._tell(now)
        return not self.above

    async def _is_above(self) -> bool:
        self._bytes = await asyncio.to_thread(self._measure)
        self.above = 0 < self._limit < self._bytes
        self._observed(self._bytes, self.above)
        return self.above

    def _tell(self, now: float) -> None:
        sizes = {"resident_mib": self._bytes // MiB, "ceiling_mib": self._limit // MiB}
        if self.above and now - self._reminded_at >= REMIND:
            self._reminded_at = now
            log.warning("worker.memory_full", **sizes, advice="no job is begun until it has shrunk; see SHIELD_WORKER_MEMORY")
        elif not self.above and self._reminded_at > float("-inf"):
            self._reminded_at = float("-inf")
            log.info("worker.memory_back", **sizes)
