"""A small fleet in one process, and workers in processes of their own to be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any, Self

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.jobs.choice import Out
from shield.jobs.events import EventSink, JobEvents
from shield.jobs.hints import RedisHints
from shield.jobs.model import JobId, JobKind
from shield.jobs.registry import Workers
from shield.jobs.relay import Relay
from shield.jobs.repository import JobRepository
from shield.jobs.streams import RedisPublisher
from shield.settings import JobSettings, RedisSettings
from shield.worker.context import Handler
from shield.worker.loop import Worker, new_worker_id
from tests.integration.jobs.support import Rows, job_settings
from tests.integration.promises.worker_process import run_worker
from tests.integration.worker.support import Scripted
from tests.peers.valkey import Valkey

LIMIT = 30.0
"""Seconds until a condition must hold, on a machine that others use too."""
BREATH = 3.0
"""Seconds granted to such a machine where a promise names a time."""


def redis_settings(valkey: Valkey) -> RedisSettings:
    """The server's address; short limits, so that a paused server is noticed."""
    return RedisSettings(url=SecretStr(valkey.url), timeout=0.5)


@dataclass
class Fleet:
    """Relays and workers on one database and one Redis."""

    engine: AsyncEngine
    valkey: Valkey
    settings: JobSettings = field(default_factory=job_settings)

    def __post_init__(self) -> None:
        self.jobs = JobRepository(self.engine, self.settings)
        self.registry = Workers(self.engine, self.settings)
        self.rows = Rows(self.engine)
        self.redis = redis_settings(self.valkey)

    def relay(self) -> Relay:
        """A relay as an orchestrator has one."""
        return Relay(self.engine, RedisPublisher(self.redis), self.settings)

    def worker(self, handler: Handler | None = None, *, events: EventSink | None = None, **changes: Any) -> Worker:
        """A worker as `shield worker` has one."""
        worker_id = new_worker_id()
        return Worker(
            self.jobs,
            {JobKind.CRAWL: handler or Scripted()},
            changes.pop("settings", self.settings),
            events or JobEvents(),
            worker_id=worker_id,
            hints=RedisHints(self.redis, self.settings, worker_id),
            registry=self.registry,
            **changes,
        )

    @asynccontextmanager
    async def running(self, *parts: Relay | Worker) -> AsyncIterator[Self]:
        """Let them run; a clean stop at the end of the block, within seconds."""
        stop = asyncio.Event()
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part.run(stop))
            try:
                yield self
            finally:
                stop.set()
                limit.reschedule(asyncio.get_running_loop().time() + LIMIT)

    async def registered(self, count: int) -> None:
        """Wait until that many workers have said that they live."""
        await until(self.registry.count, lambda found: found == count)

    async def settled(self, count: int = 0) -> None:
        """Wait until no more than `count` jobs are left."""
        left = "SELECT count(*) FROM jobs WHERE status IN ('pending', 'processing')"
        await until(lambda: self.rows.run(left), lambda rows: rows[0][0] <= count)

    async def hinted(self) -> None:
        """Wait until at least one hint is out."""
        await self._out(lambda out: out.total > 0)

    async def unhinted(self) -> None:
        """Wait until no hint is out."""
        await self._out(lambda out: out.total == 0)

    async def _out(self, holds: Callable[[Out], bool]) -> None:
        publisher = RedisPublisher(self.redis)
        await until(publisher.out, holds)
        await publisher.close()

    async def back(self, worker: Worker) -> None:
        """Wait until the worker has found Redis again."""

        async def there() -> bool:
            return worker.uses_hints

        await until(there, bool)

    async def many(self, count: int, principal: str = "ada", priority: str = "normal", needs: str = "{}") -> None:
        """Accept many jobs at once, around the limits of intake."""
        await self.rows.run(
            "INSERT INTO jobs (kind, principal, priority, needs, knowledge_base_id, knowledge_base, spec, request_hash, deadline_at) "
            "SELECT 'crawl', :principal, :priority, CAST(:needs AS text[]), gen_random_uuid(), 'default', '{}', "
            "gen_random_uuid()::text, now() + interval '1 day' FROM generate_series(1, :count)",
            count=count,
            principal=principal,
            priority=priority,
            needs=needs,
        )


async def until(look: Callable[[], Any], holds: Callable[[Any], bool], limit: float = LIMIT) -> Any:
    """What `look` finds as soon as it `holds`."""
    async with asyncio.timeout(limit):
        while not holds(found := await look()):
            await asyncio.sleep(0.02)
    return found


async def runs(fleet: Fleet, job_id: JobId) -> list[tuple[int, str]]:
    """(fence, worker) of each run of a `WorkerProcess`'s job that got to its end."""
    return [(outcome.number, outcome.source) for outcome in await fleet.jobs.outcomes(job_id)]


class WorkerProcess:
    """A real worker in a process of its own; its jobs do what their spec says (see `worker_process`)."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def started(cls, dsn: str, valkey: Valkey, *, ready: bool = True) -> AsyncIterator[WorkerProcess]:
        """Running, and registered if it is to be `ready`; killed at the end of the block."""
        forks = multiprocessing.get_context("forkserver")  # one process imports all that a worker needs, once
        forks.set_forkserver_preload(["tests.integration.promises.worker_process"])
        registered = forks.Event()
        process = forks.Process(target=run_worker, args=(dsn, valkey.url, registered))
        process.start()
        try:
            assert not ready or await asyncio.to_thread(registered.wait, LIMIT)
            yield cls(process)
        finally:
            process.kill()
            await asyncio.to_thread(process.join, LIMIT)
            process.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    async def ended(self) -> int | None:
        """Its exit code, once it has ended."""
        await asyncio.to_thread(self._process.join, LIMIT)
        return self._process.exitcode


async def started(fleet: Fleet, job_id: JobId) -> Any:
    """Wait until somebody runs the job."""
    return await until(lambda: fleet.jobs.get(None, job_id), lambda job: job.fence > 0 and job.lease_until is not None)


async def ended(fleet: Fleet, job_id: JobId) -> Any:
    """Wait until the job has ended."""
    return await until(lambda: fleet.jobs.get(None, job_id), lambda job: job.status.ended)
