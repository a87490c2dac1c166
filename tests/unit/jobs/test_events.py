"""Events: a hint that never makes a job wait, and whose newest always arrives."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from shield.jobs.events import BACKLOG, HISTORY, REMEMBERED, JobEvent, JobEvents
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


async def test_who_comes_back_gets_what_came_after_the_event_it_saw_last() -> None:
    events = JobEvents()
    for number in range(1, 5):
        events.publish(JOB, JobEvent(f"1-{number}", "progress"))
    missed = events.since(JOB, "1-2")
    assert missed is not None
    assert [event.id for event in missed] == ["1-3", "1-4"]
    assert events.since(JOB, "1-4") == []


async def test_an_event_that_is_not_remembered_is_unknown() -> None:
    events = JobEvents()
    assert events.since(JOB, "1-1") is None
    for number in range(1, HISTORY + 2):
        events.publish(JOB, JobEvent(f"1-{number}", "progress"))
    assert events.since(JOB, "1-1") is None
    assert events.since(JOB, "made-up") is None
    for _ in range(REMEMBERED):
        events.publish(JobId(uuid4()), JobEvent("1-1", "progress"))
    assert events.since(JOB, f"1-{HISTORY}") is None
    assert len(events._past) == REMEMBERED
