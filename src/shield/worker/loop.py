"""The loop that runs jobs: a few slots, where work comes from, and an orderly end.

In one process, a free slot looks for work in the database every `relay`, or at once after `notify()`. In a fleet it takes hints
(`shield.jobs.hints`) and asks the database about each; while there are no hints to be had, and when none came for a lease, it
looks for itself. Neither an outage of the database nor one of Redis ends the loop. Each job runs as an `Attempt`.

When `stop` is set, no job is begun any more; running ones get `drain` to reach a checkpoint, then they are cancelled, and all
go back to the queue at no cost. If `run` itself is cancelled, they are handed back too, without the pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any
from uuid import uuid4

import structlog

from shield import __version__
from shield.errors import DatabaseUnavailable
from shield.jobs.events import EventSink
from shield.jobs.hints import Hint, Hints
from shield.jobs.model import FLEET, Claim, Job, JobId, JobKind, WorkerId
from shield.jobs.registry import WorkerInfo, Workers
from shield.jobs.repository import JobRepository
from shield.resilience.waiting import wait
from shield.settings import JobSettings
from shield.worker.attempt import Attempt
from shield.worker.context import Draining, Handler, JobContext
from shield.worker.memory import Ceiling
from shield.worker.observer import Observer

log = structlog.get_logger(__name__)


def new_worker_id() -> WorkerId:
    """A name that no other process, and no earlier life of this one, has."""
    return WorkerId(f"{socket.gethostname()}-{uuid4().hex[:12]}")


class Worker:
    """Runs jobs of the kinds it has handlers for."""

    def __init__(
        self,
        repository: JobRepository,
        handlers: Mapping[JobKind, Handler],
        settings: JobSettings,
        events: EventSink,
        *,
        offers: frozenset[str] = frozenset(),
        worker_id: WorkerId | None = None,
        runner: str = FLEET,
        observer: Observer | None = None,
        hints: Hints | None = None,
        registry: Workers | None = None,
        ceiling: Ceiling | None = None,
    ) -> None:
        """Make a worker.

        Args:
            repository: where jobs live.
            handlers: who runs which kind; others are left to other workers.
            settings: durations and slots.
            events: where progress is published.
            offers: the needs this worker can meet (`browser`, `ocr`).
            worker_id: a name no other process has, the same that `hints` reads under; made up by default.
            runner: whose jobs to run.
            observer: told what happens, for metrics.
            hints: where it hears of jobs; None = it looks for them in the database. Closed when `run` ends.
            registry: where it says that it lives; None = nobody needs to know.
            ceiling: says whether there is memory for another job; None = always.
        """
        self.id = worker_id or new_worker_id()
        self._repository = repository
        self._handlers = dict(handlers)
        self._settings = settings
        self._events = events
        self._offers = offers
        self._runner = runner
        self._observer = observer or Observer()
        self._hints = hints
        self._registry = registry
        self._ceiling = ceiling
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._attempts: dict[JobId, Attempt] = {}
        self._running: dict[JobId, asyncio.Task[None]] = {}
        self._heard_at: float | None = None
        self._database_away = False
        self._announced_at: float | None = None

    # -- what others call ---------------------------------------------------------------------------------------------

    @property
    def offers(self) -> frozenset[str]:
        """The needs this worker can meet."""
        return self._offers

    @property
    def busy(self) -> int:
        """How many jobs it runs now."""
        return len(self._attempts)

    @property
    def uses_hints(self) -> bool:
        """Whether it hears of jobs through Redis just now."""
        return self._hints is not None and self._hints.there

    @property
    def registered(self) -> bool:
        """Whether its row was written within the last lease, so that the others count on it. Safe to call from any thread."""
        at = self._announced_at
        return at is not None and time.monotonic() - at < self._settings.lease.total_seconds()

    def notify(self, job_id: JobId | None = None) -> None:
        """Look at once instead of at the next tick: for work, or, with the id of a job running here, for a cancel."""
        attempt = self._attempts.get(job_id) if job_id is not None else None
        if attempt is not None:
            attempt.nudge()
        else:
            self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run jobs until `stop` is set and all of them are settled."""
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(work) for work in self._upkeep(stop)]
            try:
                while not self._stopping.is_set():
                    self._wake.clear()
                    if len(self._running) >= self._settings.slots or not await self._has_memory():
                        await wait(self._wake, self._tick())
                    elif (claim := await self._next(tasks)) is not None:
                        self._begin(claim, tasks)
            finally:
                self._stopping.set()
                for task in beside:
                    task.cancel()
                await self._withdraw()
            await self._drain()

    async def run_one(self, claim: Claim) -> Job | None:
        """Run one claimed job to its next resting place, in the caller's task; None if it was lost on the way.

        For a pod of its own, and where a test wants one job. Cancel it to hand the job back.
        """
        attempt = self._attempt(claim)
        try:
            return await attempt.run()
        finally:
            del self._attempts[claim.job.id]

    # -- slots --------------------------------------------------------------------------------------------------------

    def _attempt(self, claim: Claim) -> Attempt:
        if claim.lapsed:
            self._observer.lapsed()
        context = JobContext(claim, self._repository, self._events, self._settings, self._observer.stage)
        handler = self._handlers[claim.job.kind]
        attempt = Attempt(context, handler, self._repository, self._settings, stopping=self._stopping, ended=self._observer.ended)
        self._attempts[claim.job.id] = attempt
        return attempt

    def _begin(self, claim: Claim, tasks: asyncio.TaskGroup) -> None:
        self._running[claim.job.id] = tasks.create_task(self._in_slot(claim.job.id, self._attempt(claim)))

    async def _in_slot(self, job_id: JobId, attempt: Attempt) -> None:
        try:
            await attempt.run()
        except Exception:  # the border between a job and the loop: a mistake of ours in settling one job must not end the others
            # Its lease lapses, which counts as a crash, so a job that does this every time is given up.
            log.exception("job.unsettled", job_id=str(job_id))
        finally:
            del self._running[job_id], self._attempts[job_id]
            self._wake.set()

    async def _has_memory(self) -> bool:
        return self._ceiling is None or await self._ceiling.allows_another()

    # -- where work comes from ----------------------------------------------------------------------------------------

    async def _next(self, tasks: asyncio.TaskGroup) -> Claim | None:
        """The next job; None if there is none after a short wait, or the worker stops."""
        if self._hints is None or not self._hints.there:
            claim = await self._look()
            if claim is None:
                await wait(self._wake, self._tick())
            return claim
        clock = asyncio.get_running_loop().time
        self._heard_at = self._heard_at or clock()
        if (hint := await self._hints.take(self._stopping)) is not None:
            self._heard_at = clock()
            return await self._follow(hint, self._hints, tasks)
        if self._stopping.is_set() or clock() - self._heard_at < self._settings.lease.total_seconds():
            return None
        claim = await self._look()  # it has been quiet for long: there may be no relay
        if claim is None:
            self._heard_at = clock()
        return claim

    async def _follow(self, hint: Hint, hints: Hints, tasks: asyncio.TaskGroup) -> Claim | None:
        """The hinted job, if it can be had."""
        if self._stopping.is_set():
            return None  # it goes back with all that was taken and not looked at
        claim = None
        if hint.job_id not in self._running:
            try:
                claim = await self._repository.claim_hinted(hint.job_id, self.id, self._offers, self._runner, kinds=self._handlers)
            except DatabaseUnavailable:
                self._database_is(there=False)
                await hints.give_back(hint)
                await wait(self._wake, self._tick())
                return None
            self._database_is(there=True)
        tasks.create_task(hints.done(hint))
        return claim

    async def _look(self) -> Claim | None:
        """The job whose turn it is, by the database alone; None also while it is away."""
        try:
            await self._repository.unpark(self._runner)
            claim = await self._repository.claim_next(
                self.id, self._offers, self._runner, kinds=self._handlers, exclude=tuple(self._running)
            )
        except DatabaseUnavailable:
            self._database_is(there=False)
            return None
        self._database_is(there=True)
        return claim

    def _database_is(self, *, there: bool) -> None:
        """Say once when the database goes, and when it is back."""
        if there and self._database_away:
            log.info("worker.database_back")
        elif not there and not self._database_away:
            log.warning("worker.database_away")
        self._database_away = not there

    def _tick(self) -> float:
        return self._settings.relay.total_seconds() * random.uniform(0.75, 1.25)  # noqa: S311 - jitter

    # -- beside the slots ---------------------------------------------------------------------------------------------

    def _upkeep(self, stop: asyncio.Event) -> Iterator[Coroutine[Any, Any, None]]:
        yield self._stop_when(stop)
        yield self._sweep_now_and_then()
        if self._hints is not None:
            yield self._hints.keep()
        if self._registry is not None:
            yield self._announce(self._registry)

    async def _announce(self, registry: Workers) -> None:
        """Say with every heartbeat that this worker lives, and how many slots it has while there is memory."""
        while not self._stopping.is_set():
            slots = 0 if self._ceiling is not None and self._ceiling.above else self._settings.slots
            with contextlib.suppress(DatabaseUnavailable):
                await registry.announce(WorkerInfo(self.id, slots, self._offers, __version__, self._runner))
                self._announced_at = time.monotonic()
            await wait(self._stopping, self._settings.heartbeat.total_seconds())

    async def _sweep_now_and_then(self) -> None:
        """Sweep about once a lease; which of several processes does it is left to chance and a lock."""
        while not await wait(self._stopping, self._settings.lease.total_seconds() * random.uniform(0.5, 1)):  # noqa: S311
            try:
                swept = await self._repository.sweep(self._runner)
            except DatabaseUnavailable:
                continue
            if swept is None:
                continue
            self._observer.swept(swept)
            if swept.unparked:
                self._wake.set()

    async def _stop_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stopping.set()
        self._wake.set()

    async def _withdraw(self) -> None:
        """Take no more work: hints go to others, and nobody counts on these slots."""
        if self._hints is not None:
            await self._hints.close()
        self._announced_at = None
        if self._registry is not None:
            with contextlib.suppress(DatabaseUnavailable, TimeoutError):
                async with asyncio.timeout(self._settings.drain.total_seconds()):
                    await self._registry.leave(self.id)

    async def _drain(self) -> None:
        """Ask all running jobs to leave at their next checkpoint, then cancel those that did not."""
        running = {task: self._attempts[job_id] for job_id, task in self._running.items()}
        for attempt in running.values():
            attempt.stop(Draining())
        if running:
            _, late = await asyncio.wait(running, timeout=self._settings.drain.total_seconds())
            for task in late:
                running[task].interrupt(Draining())
