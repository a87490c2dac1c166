"""Events across processes: what a worker reports is seen by the watchers of every orchestrator.

A worker's `EventSender` takes the place of `JobEvents`: it keeps a bounded queue, loses the oldest when Redis is slow, and never
makes the job wait. Every orchestrator's `EventReceiver` reads the stream into its own `JobEvents`. It begins with the newest
entries, so that a watcher who comes back after a restart, or to another orchestrator, finds the event it saw last.
Events may be lost; the row may not, and who watches looks at it anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog

from shield.jobs.events import JobEvent, JobEvents
from shield.jobs.model import JobId
from shield.jobs.streams import EVENTS, MAX_EVENTS, StreamsAway, away, blocking, connect, entries
from shield.settings import RedisSettings

log = structlog.get_logger(__name__)

QUEUE = 2_000
"""Events that wait in a worker at most."""
_BATCH = 200
_WINDOW = 2_000
"""Newest entries that a starting receiver reads."""
_RETRY = 0.5  # seconds, with jitter, between two tries while Redis is away


class EventSender:
    """Publishes a worker's events; an `EventSink`."""

    def __init__(self, settings: RedisSettings) -> None:
        self._limit = settings.timeout.total_seconds()
        self._client = connect(settings)
        self._queue: deque[dict[Any, Any]] = deque(maxlen=QUEUE)
        self._arrived = asyncio.Event()

    def publish(self, job: JobId, event: JobEvent) -> None:
        """Queue `event`, at the cost of the oldest when the queue is full."""
        self._queue.append({"job": str(job), "id": event.id, "name": event.name, "data": json.dumps(event.data)})
        self._arrived.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set and what was queued by then is sent; set it after the worker has ended."""
        stopping = asyncio.create_task(self._wake_when(stop))
        try:
            while not stop.is_set():
                await self._arrived.wait()
                self._arrived.clear()
                while self._queue and not stop.is_set():
                    if not await self._send():
                        await asyncio.sleep(_RETRY * random.uniform(0.5, 1))  # noqa: S311 - jitter
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limit):
                    while self._queue and await self._send():
                        pass
        finally:
            stopping.cancel()
            await self._client.aclose()

    async def _send(self) -> bool:
        """Send some; False, and nothing is taken from the queue, if Redis is away."""
        batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
        try:
            with away():
                async with self._client.pipeline(transaction=False) as pipe:
                    for fields in batch:
                        pipe.xadd(EVENTS, fields, maxlen=MAX_EVENTS, approximate=True)
                    await pipe.execute()
        except StreamsAway:
            self._queue.extendleft(reversed(batch[max(0, len(batch) + len(self._queue) - QUEUE) :]))
            return False
        return True

    async def _wake_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._arrived.set()


class EventReceiver:
    """Hands the events of all workers to the watchers of this process.

    Args:
        settings: where Redis is.
        events: the watchers.
        settled: called when a job has let go of its slot, because the next one may begin (`Relay.notify`).
    """

    def __init__(self, settings: RedisSettings, events: JobEvents, *, settled: Callable[[], None] = lambda: None) -> None:
        self._client = connect(settings)
        self._block = blocking(settings)
        self._events = events
        self._settled = settled
        self._last: str | None = None
        self._away_told = False

    async def run(self, stop: asyncio.Event) -> None:
        """Receive until `stop` is set."""
        stopping = asyncio.create_task(stop.wait())
        receiving = asyncio.create_task(self._receive_for_ever())
        try:
            await asyncio.wait({stopping, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                receiving.result()
        finally:
            stopping.cancel()
            receiving.cancel()
            await asyncio.gather(stopping, receiving, return_exceptions=True)
            await self._client.aclose()

    async def _receive_for_ever(self) -> None:
        while True:
            try:
                with away():
                    await self._receive()
            except StreamsAway as error:
                if not self._away_told:
                    log.warning("events.away", error=str(error), advice="watchers see what the rows say meanwhile")
                self._away_told = True
                await asyncio.sleep(_RETRY * random.uniform(0.5, 1))  # noqa: S311
            else:
                if self._away_told:
                    log.info("events.back")
                self._away_told = False

    async def _receive(self) -> None:
        """One read; the first brings the newest entries, later ones what is new."""
        answer: Any
        if self._last is None:
            newest: Any = await self._client.xrevrange(EVENTS, count=_WINDOW)
            answer = [(EVENTS, newest[::-1])]
            self._last = "0-0"
        else:
            answer = await self._client.xread({EVENTS: self._last}, count=_BATCH, block=self._block)
        for _, entry, fields in entries(answer):
            self._last = entry
            self._hand_over(fields)

    def _hand_over(self, fields: dict[Any, Any]) -> None:
        """An entry that is none of ours is passed over."""
        try:
            job = JobId(UUID(fields["job"]))
            data = json.loads(fields["data"])
            event = JobEvent(str(fields["id"]), str(fields["name"]), dict(data))
        except (KeyError, ValueError, TypeError, RecursionError):
            return
        self._events.publish(job, event)
        if "status" in event.data:
            self._settled()
