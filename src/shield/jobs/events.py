"""Progress events inside this process, for those who watch a job live.

An event is a hint: it may be lost, the row may not. A publisher never waits. A subscriber that does not keep up loses its
oldest events and always finds the newest, so the end of a job is seen last and is seen. A watcher polls the row as well, for
what was lost (`next` takes a time limit for that).

The newest events of the jobs heard of last are kept, so that a watcher who was cut off goes on after the event it saw last.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from shield.jobs.model import JobId
from shield.resilience.waiting import wait

BACKLOG = 64
"""Events kept for a subscriber that is busy."""
HISTORY = 32
"""Events kept of a job, for a subscriber that comes back."""
REMEMBERED = 256
"""Jobs whose events are kept."""


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
            if not await wait(self._arrived, limit):
                return None
        return self._events.popleft()


class JobEvents:
    """Who watches which job; belongs to one event loop."""

    def __init__(self) -> None:
        self._watched: dict[JobId, set[Subscription]] = {}
        self._past: OrderedDict[JobId, deque[JobEvent]] = OrderedDict()

    def publish(self, job: JobId, event: JobEvent) -> None:
        """Hand `event` to everyone who watches `job`; never waits."""
        self._past.setdefault(job, deque(maxlen=HISTORY)).append(event)
        self._past.move_to_end(job)
        if len(self._past) > REMEMBERED:
            self._past.popitem(last=False)
        for subscription in self._watched.get(job, ()):
            subscription.offer(event)

    def since(self, job: JobId, event_id: str) -> list[JobEvent] | None:
        """What came after the event of this id; None if it is not remembered."""
        past = list(self._past.get(job, ()))
        places = [place for place, event in enumerate(past) if event.id == event_id]
        return past[places[-1] + 1 :] if places else None

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
