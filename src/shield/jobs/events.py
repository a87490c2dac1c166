"""Progress events inside this process, for those who watch a job live.

An event is a hint: it may be lost, the row may not. A publisher never waits. A subscriber that does not keep up loses its
oldest events and always finds the newest, so the end of a job is seen last and is seen. Who watches a job that runs in
another process polls its row; the two go together (`next` takes a time limit for that).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from shield.jobs.model import JobId

BACKLOG = 64
"""Events kept for a subscriber that is busy."""


@dataclass(frozen=True)
class JobEvent:
    """Something a job's watchers want to see; `id` is `{fence}-{n}`."""

    id: str
    name: str
    """progress | end."""
    data: dict[str, Any] = field(default_factory=dict)


class EventSink(Protocol):
    """Where a job's events go: to the watchers of this process, or to those of others (`bridge.EventSender`)."""

    def publish(self, job: JobId, event: JobEvent) -> None:
        """Hand over `event`; never waits."""


class Subscription:
    """The events of one job, as they come."""

    def __init__(self, backlog: int = BACKLOG) -> None:
        self._events: deque[JobEvent] = deque(maxlen=backlog)
        self._arrived = asyncio.Event()

    def offer(self, event: JobEvent) -> None:
        """Add an event, at the cost of the oldest when the backlog is full."""
        self._events.append(event)
        self._arrived.set()

    async def next(self, limit: float) -> JobEvent | None:
        """The next event, or None if none comes within `limit` seconds."""
        if not self._events:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), limit)
            except TimeoutError:
                return None
        return self._events.popleft()


class JobEvents:
    """Who watches which job; belongs to one event loop."""

    def __init__(self) -> None:
        self._watched: dict[JobId, set[Subscription]] = {}

    def publish(self, job: JobId, event: JobEvent) -> None:
        """Hand `event` to everyone who watches `job`; never waits, keeps nothing when nobody does."""
        for subscription in self._watched.get(job, ()):
            subscription.offer(event)

    @contextmanager
    def subscribe(self, job: JobId) -> Iterator[Subscription]:
        """Watch `job` inside the `with` block; only events published from now on are seen, so read the row after this."""
        subscription = Subscription()
        self._watched.setdefault(job, set()).add(subscription)
        try:
            yield subscription
        finally:
            watchers = self._watched[job]
            watchers.discard(subscription)
            if not watchers:
                del self._watched[job]
