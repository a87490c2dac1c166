"""The whole life of a worker process of a fleet, whose jobs do what their spec says.

`{"sleep": seconds}`, `{"die": true}` (SIGKILL of this process), or nothing. Each run of a job that goes to its end is recorded as
an outcome, so that a run under an outdated fence would be seen.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Protocol

from pydantic import SecretStr

from shield.database.engine import create_engine
from shield.jobs.bridge import EventSender
from shield.jobs.hints import RedisHints
from shield.jobs.model import DocumentOutcome, JobKind, OutcomeStatus
from shield.jobs.registry import Workers
from shield.jobs.repository import JobRepository
from shield.settings import PostgresSettings, RedisSettings
from shield.worker.context import Completed, Ending, JobContext
from shield.worker.loop import Worker, new_worker_id
from tests.integration.jobs.support import job_settings


class Told:
    """Does what the spec says."""

    async def run(self, context: JobContext) -> Ending:
        """Do it."""
        spec = context.job.spec
        if spec.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if not context.claim.resumed or spec.get("always"):
            await asyncio.sleep(spec.get("sleep", 0))
        await context.outcome(DocumentOutcome(context.claim.fence, context.claim.worker, OutcomeStatus.STORED))
        return Completed()


class Flag(Protocol):
    """What `multiprocessing.Event` is."""

    def set(self) -> None:
        """Tell the parent."""


def run_worker(dsn: str, url: str, registered: Flag) -> None:
    """Run until SIGTERM; `registered` is set once the fleet knows the worker."""
    asyncio.run(_main(dsn, url, registered))


async def _main(dsn: str, url: str, registered: Flag) -> None:
    settings, redis = job_settings(), RedisSettings(url=SecretStr(url), timeout=0.5)
    engine = create_engine(dsn, PostgresSettings())
    registry, worker_id, events = Workers(engine, settings), new_worker_id(), EventSender(redis)
    hints = RedisHints(redis, settings, worker_id)
    worker = Worker(
        JobRepository(engine, settings), {JobKind.CRAWL: Told()}, settings, events, worker_id=worker_id, hints=hints, registry=registry
    )
    stop, over = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(stop))
        tasks.create_task(events.run(over))
        while not any(info.id == worker_id for info in await registry.live()):
            await asyncio.sleep(0.01)
        registered.set()
        await running
        over.set()
    await engine.dispose()
