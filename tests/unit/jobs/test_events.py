"""Events: a hint that never makes a job wait, and whose newest always arrives."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from shield.jobs.events import BACKLOG, JobEvent, JobEvents
from shield.jobs.model import JobId

JOB, OTHER = JobId(uuid4()), JobId(uuid4())


async def test_everyone_who_watches_a_job_sees_its_events_in_order_and_no_others() -> None:
    events = JobEvents()
    with events.subscribe(JOB) as one, events.subscribe(JOB) as two, events.subscribe(OTHER) as other:
        for number in (1, 2):
            events.publish(JOB, JobEvent(f"1-{number}", "progress", {"n": number}))
        for watcher in (one, two):
            assert [event.id for _ in range(2) if (event := await watcher.next(1))] == ["1-1", "1-2"]
        assert await other.next(0) is None


async def test_who_waits_is_woken() -> None:
    events = JobEvents()
    with events.subscribe(JOB) as watcher:
        waiting = asyncio.create_task(watcher.next(5))
        await asyncio.sleep(0)
        events.publish(JOB, JobEvent("1-1", "end"))
        assert await waiting == JobEvent("1-1", "end")


async def test_a_wait_has_a_limit() -> None:
    with JobEvents().subscribe(JOB) as watcher:
        assert await watcher.next(0.01) is None


async def test_a_slow_watcher_loses_the_oldest_and_finds_the_end() -> None:
    events = JobEvents()
    with events.subscribe(JOB) as watcher:
        for number in range(BACKLOG * 3):
            events.publish(JOB, JobEvent(f"1-{number}", "progress"))
        events.publish(JOB, JobEvent("1-end", "end"))
        seen = []
        while (event := await watcher.next(0)) is not None:
            seen.append(event.id)
    assert len(seen) == BACKLOG
    assert seen[-1] == "1-end"


async def test_nothing_is_kept_for_nobody() -> None:
    events = JobEvents()
    events.publish(JOB, JobEvent("1-1", "progress"))
    with events.subscribe(JOB) as watcher:
        assert await watcher.next(0) is None
    assert events._watched == {}
