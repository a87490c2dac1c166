"""Handlers that do what a test tells them, and a running worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from shield.jobs.events import JobEvents
from shield.jobs.model import Job, JobId, JobKind
from shield.jobs.repository import JobRepository
from shield.settings import JobSettings
from shield.worker.context import Completed, Ending, JobContext
from shield.worker.loop import Worker
from tests.integration.jobs.support import job_settings

Script = Callable[[JobContext], Awaitable[Ending]]


async def complete(_: JobContext) -> Ending:
    """A job without work."""
    return Completed()


class Scripted:
    """A handler that runs `script`, and tells when a job has begun."""

    def __init__(self, script: Script = complete) -> None:
        self.script = script
        self.runs: list[JobContext] = []
        self.begun = asyncio.Event()

    async def run(self, context: JobContext) -> Ending:
        self.runs.append(context)
        self.begun.set()
        return await self.script(context)


async def until_told(context: JobContext) -> Ending:
    """Work in small units until a checkpoint says to stop."""
    while True:
        await context.checkpoint()
        await asyncio.sleep(0.01)


async def deaf(_: JobContext) -> Ending:
    """Work that never reaches a checkpoint."""
    await asyncio.Event().wait()
    raise AssertionError


def a_worker(jobs: JobRepository, handler: Scripted, settings: JobSettings | None = None, **changes: Any) -> Worker:
    """A worker that crawls with `handler`."""
    return Worker(jobs, {JobKind.CRAWL: handler}, settings or job_settings(), changes.pop("events", JobEvents()), **changes)


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Event]:
    """The worker at work; a clean stop at the end of the block, within three seconds."""
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(3):
            await task


async def eventually(jobs: JobRepository, job_id: JobId, condition: Callable[[Job], bool], limit: float = 10) -> Job:
    """The job as soon as `condition` holds."""
    async with asyncio.timeout(limit):
        while not condition(job := await jobs.get(None, job_id)):
            await asyncio.sleep(0.02)
    return job


async def ended(jobs: JobRepository, job_id: JobId, limit: float = 10) -> Job:
    """The job as soon as it has ended."""
    return await eventually(jobs, job_id, lambda job: job.status.ended, limit)
