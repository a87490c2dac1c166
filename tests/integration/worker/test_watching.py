"""Watching a job live: a snapshot first, or what came after the event that the watcher saw last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shield.auth import Principal, Scope
from shield.errors import UnknownJob
from shield.jobs.events import JobEvents
from shield.jobs.model import JobId
from shield.jobs.repository import JobRepository
from shield.service.jobs import JobCases
from shield.settings import load
from shield.worker.context import Completed, Ending, JobContext
from tests.integration.jobs.support import a_request
from tests.integration.worker.support import Scripted, a_worker, running

ADA = Principal("ada", frozenset(Scope))


@pytest.fixture
def events() -> JobEvents:
    return JobEvents()


@pytest.fixture
def cases(jobs: JobRepository, events: JobEvents) -> JobCases:
    """The use cases of jobs, on what they need."""
    return JobCases(cast("Any", SimpleNamespace(jobs=jobs, events=events, settings=load())))


@asynccontextmanager
async def watched(cases: JobCases, job_id: JobId, last: str | None = None) -> AsyncIterator[AsyncIterator[tuple[str, str, dict[str, Any]]]]:
    """The stream, closed at the end of the block."""
    stream = cases.events(ADA, job_id, last)
    try:
        yield stream
    finally:
        await cast("AsyncGenerator[Any, None]", stream).aclose()


async def test_a_watcher_that_was_cut_off_goes_on_after_the_event_it_saw_last(
    jobs: JobRepository, events: JobEvents, cases: JobCases
) -> None:
    go_on = asyncio.Event()

    async def script(context: JobContext) -> Ending:
        for number in (1, 2):
            await context.progress(documents=number)
            await context.flush()
        await go_on.wait()
        return Completed()

    job = await jobs.accept(a_request())
    async with running(a_worker(jobs, Scripted(script), events=events)):
        async with watched(cases, job.id) as first:
            seen = [await anext(first) for _ in range(3)]
        assert [name for _, name, _ in seen] == ["snapshot", "progress", "progress"]
        async with watched(cases, job.id, seen[1][0]) as again:
            event_id, name, data = await anext(again)
            assert (event_id, name, data["progress"]["documents"]) == (seen[2][0], "progress", 2)
            go_on.set()
            assert [name async for _, name, _ in again][-1] == "end"
        assert [name async for _, name, _ in cases.events(ADA, job.id, "9-9")] == ["snapshot", "end"]
        assert [name async for _, name, _ in cases.events(ADA, job.id, "1-end")] == ["end"]


async def test_an_event_id_opens_nobody_elses_job(jobs: JobRepository, events: JobEvents, cases: JobCases) -> None:
    job = await jobs.accept(a_request(principal="bob"))
    async with running(a_worker(jobs, Scripted(), events=events)):
        with pytest.raises(UnknownJob):
            await anext(cases.events(ADA, job.id, "1-1"))
