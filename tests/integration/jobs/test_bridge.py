"""Events across processes: what a worker says reaches the watchers elsewhere, and never makes the worker wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from shield.jobs.bridge import QUEUE, EventReceiver, EventSender
from shield.jobs.events import JobEvent, JobEvents
from shield.jobs.model import JobId
from shield.jobs.streams import EVENTS
from tests.integration.promises.support import redis_settings, until
from tests.peers.valkey import Valkey

JOB = JobId(uuid4())


@dataclass
class Orchestrator:
    """Watchers, fed by a receiver."""

    events: JobEvents = field(default_factory=JobEvents)
    settled: int = 0

    def slot_is_free(self) -> None:
        self.settled += 1

    async def knows(self, job: JobId, event_id: str) -> None:
        """Wait until the event has arrived."""

        async def look() -> bool:
            return self.events.since(job, event_id) is not None

        await until(look, bool)


@asynccontextmanager
async def running(part: EventSender | EventReceiver) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(part.run(stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(3):
            await task


@asynccontextmanager
async def orchestrator(valkey: Valkey) -> AsyncIterator[Orchestrator]:
    one = Orchestrator()
    async with running(EventReceiver(redis_settings(valkey), one.events, settled=one.slot_is_free)):
        yield one


@pytest.fixture
def sender(valkey: Valkey) -> EventSender:
    return EventSender(redis_settings(valkey))


def progress(number: int, **data: object) -> JobEvent:
    return JobEvent(f"1-{number}", "progress", {"n": number, **data})


async def test_every_orchestrator_sees_a_workers_events_in_order(sender: EventSender, valkey: Valkey) -> None:
    async with orchestrator(valkey) as one, orchestrator(valkey) as two, running(sender):
        with one.events.subscribe(JOB) as first, two.events.subscribe(JOB) as second:
            for number in (1, 2, 3):
                sender.publish(JOB, progress(number))
            for watcher in (first, second):
                seen = [event for _ in range(3) if (event := await watcher.next(10))]
                assert seen == [progress(1), progress(2), progress(3)]


async def test_who_comes_back_to_another_or_a_restarted_orchestrator_finds_the_event_it_saw_last(
    sender: EventSender, valkey: Valkey
) -> None:
    async with running(sender):
        for number in (1, 2, 3):
            sender.publish(JOB, progress(number))
        async with orchestrator(valkey) as one:
            await one.knows(JOB, "1-3")
        async with orchestrator(valkey) as another:
            await another.knows(JOB, "1-3")
            missed = another.events.since(JOB, "1-1")
    assert missed == [progress(2), progress(3)]


async def test_a_job_that_lets_go_of_its_slot_is_heard_of(sender: EventSender, valkey: Valkey) -> None:
    async with orchestrator(valkey) as one, running(sender):
        sender.publish(JOB, progress(1))
        sender.publish(JOB, progress(2, status="pending"))
        sender.publish(JOB, JobEvent("1-3", "end", {"status": "completed"}))
        await one.knows(JOB, "1-3")
        assert one.settled == 2


async def test_what_is_queued_at_the_end_is_sent(sender: EventSender, valkey: Valkey) -> None:
    async with orchestrator(valkey) as one:
        async with running(sender):
            sender.publish(JOB, progress(1))
        await one.knows(JOB, "1-1")


async def test_entries_that_are_none_of_ours_are_passed_over(sender: EventSender, valkey: Valkey) -> None:
    async with orchestrator(valkey) as one, running(sender):
        with valkey.client() as client:
            for fields in (
                {"x": "y"},
                {"job": "?", "id": "1", "name": "n", "data": "{}"},
                {"job": str(JOB), "id": "1", "name": "n", "data": "[1]"},
            ):
                client.xadd(EVENTS, fields)
        sender.publish(JOB, progress(1))
        await one.knows(JOB, "1-1")


async def test_while_redis_is_away_nobody_waits_and_the_newest_arrive_afterwards(sender: EventSender, valkey: Valkey) -> None:
    async with orchestrator(valkey) as one, running(sender):
        sender.publish(JOB, progress(0))
        await one.knows(JOB, "1-0")
        valkey.kill()
        began = time.monotonic()
        for number in range(1, QUEUE + 100):
            sender.publish(JOB, progress(number))
        assert time.monotonic() - began < 2
        valkey.start()
        await one.knows(JOB, f"1-{QUEUE + 99}")
