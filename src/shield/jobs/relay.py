"""The relay: publishes hints for the jobs whose turn it is, and again for those whose hint or worker was lost.

One runs in every orchestrator; at any moment one of them chooses (see `choice`). It commits the stamps first and publishes
then, so a relay that dies in between, or a Redis that loses its data, costs a little time and never a job: a stamp is believed
only so long. A hint too many costs one statement of the worker that takes it.

PostgreSQL is asked every `jobs.relay`, when a job was accepted or ended (`notify`), and while more jobs wait than hints may be
out, as soon as a look at Redis (every `jobs.refill`) finds that hints were taken. Neither of the two being away ends the relay.
The same process puts parked jobs back whose graph steps are through, and sweeps, so that jobs end in time without any worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import DatabaseUnavailable
from shield.jobs.choice import Out
from shield.jobs.model import FLEET, JobId, Priority, Swept
from shield.jobs.registry import Workers
from shield.jobs.repository import JobRepository
from shield.jobs.streams import StreamsAway
from shield.resilience.waiting import wait
from shield.settings import JobSettings

log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """Where hints are put; `streams.RedisPublisher`."""

    async def out(self) -> Out:
        """The hints that are out.

        Raises:
            StreamsAway: it cannot be known.
        """

    async def publish(self, hints: Sequence[tuple[JobId, Priority, str | None]]) -> None:
        """Publish hints: job, priority, traceparent.

        Raises:
            StreamsAway: some of them, or all, are not out.
        """

    async def close(self) -> None:
        """Disconnect."""


class Relay:
    """The relay of one process.

    Args:
        engine: the database.
        publisher: where hints go; closed when `run` ends.
        settings: `relay`, `refill`, `lease`, and the limits.
        runner: whose jobs.
        published: told how many hints went out, for metrics.
        swept: told what a sweep did, for metrics.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        publisher: Publisher,
        settings: JobSettings,
        *,
        runner: str = FLEET,
        published: Callable[[int], None] = lambda _: None,
        swept: Callable[[Swept], None] = lambda _: None,
    ) -> None:
        self._jobs = JobRepository(engine, settings)
        self._workers = Workers(engine, settings)
        self._publisher = publisher
        self._settings = settings
        self._runner = runner
        self._told = published
        self._tell_swept = swept
        self._wake = asyncio.Event()
        self._published = 0
        self._more = False
        self._out_before = 0
        self._away: set[str] = set()

    def notify(self, job_id: JobId | None = None) -> None:
        """A job was accepted, or a slot is free: look at once. With a job's id (a cancel) there is nothing to publish."""
        if job_id is None:
            self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._sweep_now_and_then(stop)), tasks.create_task(self._wake_when(stop))]
            try:
                await self._relay(stop)
            finally:
                for task in beside:
                    task.cancel()
                await self._publisher.close()

    async def _relay(self, stop: asyncio.Event) -> None:
        clock, look_at = asyncio.get_running_loop().time, 0.0
        while not stop.is_set():
            due, woken = clock() >= look_at, self._wake.is_set()
            self._wake.clear()
            if due:
                look_at = clock() + self._pause(self._settings.relay)
            with self._trouble():
                if due:
                    await self._jobs.unpark(self._runner)
                if due or woken or await self._hints_were_taken():
                    await self._offer(regular=due, again=woken)
            if self._more or woken:  # a burst of notifications asks no oftener than this either
                await asyncio.sleep(self._settings.refill.total_seconds())
            if not self._more:
                await wait(self._wake, look_at - clock())

    async def _hints_were_taken(self) -> bool:
        """Whether more jobs wait and fewer hints are out than after the last look."""
        if not self._more:
            return False
        out = (await self._publisher.out()).total
        taken, self._out_before = out < self._out_before, out
        return taken

    async def _offer(self, *, regular: bool, again: bool) -> None:
        """Choose and publish as many hints as there is room for; if another process is choosing, try `again` or leave it to it."""
        self._more = False
        out = await self._publisher.out()
        chosen = await self._jobs.choose(out, self._runner, regular=regular, published_before=self._published)
        if chosen is None:
            if again:
                self._wake.set()
            return
        self._more, self._out_before = chosen.more, out.total + len(chosen.jobs)
        if chosen.jobs:
            await self._publisher.publish([(job.id, job.priority, job.traceparent) for job in chosen.jobs])
            self._published += len(chosen.jobs)
            self._told(len(chosen.jobs))

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        """Outlive Redis and PostgreSQL, and say once when they go and when they are back."""
        away = None
        try:
            yield
        except StreamsAway:
            away = "redis"
        except DatabaseUnavailable:
            away = "postgres"
        if away is None:
            for name in self._away:
                log.info("relay.back", service=name)
            self._away.clear()
            return
        self._more = False
        if away not in self._away:
            self._away.add(away)
            log.warning("relay.waits", service=away)

    async def _sweep_now_and_then(self, stop: asyncio.Event) -> None:
        while not await wait(stop, self._pause(self._settings.lease)):
            with contextlib.suppress(DatabaseUnavailable):
                if (swept := await self._jobs.sweep(self._runner)) is not None:
                    self._tell_swept(swept)
                await self._workers.forget_dead()

    async def _wake_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    @staticmethod
    def _pause(duration: timedelta) -> float:
        return duration.total_seconds() * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
