"""The loop that runs jobs: a few slots, a heartbeat for each, and an orderly end.

A free slot looks for work every `relay`, or at once after `notify()`. Each running job has a heartbeat beside it that renews
the lease and stops the handler when its owner cancelled, its deadline passed, its fence is outdated, or the lease could not
be renewed in time. How the handler ended is then written, again and again while the database is away; only when the process
has to go first does the lease lapse, which the next worker counts as a crash. A database outage never ends the loop.

When `stop` is set, no job is begun any more; running ones get `drain` to reach a checkpoint, then they are cancelled, and all
go back to the queue at no cost. If `run` itself is cancelled, they are handed back too, without the pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

import structlog

from shield.errors import (
    CircuitOpen,
    DatabaseUnavailable,
    DeadlineExceeded,
    DependencyMisconfigured,
    DependencyThrottled,
    DependencyUnavailable,
    InternalError,
    JobCancelled,
    LeaseLost,
    ShieldError,
)
from shield.jobs.events import JobEvents
from shield.jobs.model import FLEET, Beat, Claim, Job, JobId, JobKind, Status, WorkerId
from shield.jobs.repository import JobRepository
from shield.settings import JobSettings
from shield.worker.context import Completed, Draining, Ending, Failed, Handler, JobContext, Parked

T = TypeVar("T")

log = structlog.get_logger(__name__)

_WAITS = (CircuitOpen, DependencyMisconfigured, DependencyThrottled, DatabaseUnavailable)
"""The job is fine, something else is not: it goes back and spends nothing."""

_STOPS = (LeaseLost, JobCancelled, Draining, DeadlineExceeded)


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
        events: JobEvents,
        *,
        offers: frozenset[str] = frozenset(),
        worker_id: WorkerId | None = None,
        runner: str = FLEET,
        ended: Callable[[Job], None] = lambda _: None,
    ) -> None:
        """Make a worker.

        Args:
            repository: where jobs live.
            handlers: who runs which kind; others are left to other workers.
            settings: durations and slots.
            events: where progress is published.
            offers: the needs this worker can meet (`browser`, `ocr`).
            worker_id: a name no other process has; made up by default.
            runner: whose jobs to run.
            ended: called with each job that reached an end state here (for metrics); must not fail.
        """
        self.id = worker_id or new_worker_id()
        self._repository = repository
        self._handlers = dict(handlers)
        self._settings = settings
        self._events = events
        self._offers = offers
        self._runner = runner
        self._ended = ended
        self._wake = asyncio.Event()
        self._nudges: dict[JobId, asyncio.Event] = {}
        self._running: dict[JobId, tuple[JobContext, asyncio.Task[None]]] = {}
        self._stopping = False
        self._database_away = False

    # -- what others call ---------------------------------------------------------------------------------------------

    @property
    def offers(self) -> frozenset[str]:
        """The needs this worker can meet."""
        return self._offers

    def notify(self, job_id: JobId | None = None) -> None:
        """Look at once instead of at the next tick: for work, or, with the id of a job running here, for a cancel."""
        nudge = self._nudges.get(job_id) if job_id is not None else None
        (nudge or self._wake).set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run jobs until `stop` is set and all of them are settled."""
        async with asyncio.TaskGroup() as tasks:
            sweeper = tasks.create_task(self._sweep_now_and_then())
            watcher = tasks.create_task(self._stop_when(stop))
            try:
                while not self._stopping:
                    self._wake.clear()
                    claim = await self._next() if len(self._running) < self._settings.slots else None
                    if claim is not None:
                        self._begin(claim, tasks)
                    else:
                        await _wait(self._wake, self._settings.relay.total_seconds() * random.uniform(0.75, 1.25))  # noqa: S311
                await self._drain()
            finally:
                sweeper.cancel()
                watcher.cancel()

    async def run_one(self, claim: Claim) -> Job | None:
        """Run one claimed job to its next resting place, in the caller's task; None if it was lost on the way.

        For a pod of its own, and where a test wants one job. Cancel it to hand the job back.
        """
        return await self._run(JobContext(claim, self._repository, self._events, self._settings))

    # -- one job ------------------------------------------------------------------------------------------------------

    def _begin(self, claim: Claim, tasks: asyncio.TaskGroup) -> None:
        context = JobContext(claim, self._repository, self._events, self._settings)
        self._running[claim.job.id] = (context, tasks.create_task(self._in_slot(context)))

    async def _in_slot(self, context: JobContext) -> None:
        try:
            await self._run(context)
        except Exception:
            # The border between a job and the loop: a mistake of ours in settling one job must not end the others. Its
            # lease lapses, which counts as a crash, so a job that does this every time is given up.
            log.exception("job.unsettled", job_id=str(context.job.id))
        finally:
            del self._running[context.job.id]
            self._wake.set()

    async def _run(self, context: JobContext) -> Job | None:
        grace = self._settings.drain.total_seconds()
        with structlog.contextvars.bound_contextvars(job_id=str(context.job.id)):
            try:
                how = await self._supervise(context)
            except asyncio.CancelledError:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace):
                        await self._settle(context, Draining())
                raise
            return await _despite_cancel(self._settle(context, how), grace)

    async def _supervise(self, context: JobContext) -> Ending | Exception:
        """Run the handler beside its heartbeat; returns what it returned or raised, or why it was stopped."""
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(self._work(context))
            context.attach(work)
            keeper = tasks.create_task(self._keep(context))
            await asyncio.wait([work])
            keeper.cancel()
        if work.cancelled():
            return context.stopped or Draining()
        how = work.result()
        return context.stopped if isinstance(how, Exception) and context.stopped is not None else how

    async def _work(self, context: JobContext) -> Ending | Exception:
        try:
            return await self._handlers[context.job.kind].run(context)
        except Exception as error:  # noqa: BLE001 - the border of a job: whatever a handler raises decides about its job, not about the worker
            return error

    async def _keep(self, context: JobContext) -> None:
        """Renew the lease, and stop the handler when there is a reason.

        The watchdog does not wait for the database: it stops the handler when the last good lease has run out.
        """
        loop = asyncio.get_running_loop()
        lease, heartbeat = self._settings.lease.total_seconds(), self._settings.heartbeat.total_seconds()
        nudge = self._nudges.setdefault(context.job.id, asyncio.Event())
        watchdog = loop.call_later(lease, context.interrupt, DatabaseUnavailable(service="postgres"))
        pause = heartbeat
        try:
            while context.stopped is None or isinstance(context.stopped, Draining):
                await _wait(nudge, pause)
                nudge.clear()
                began = loop.time()
                try:
                    beat = await self._repository.heartbeat(context.claim)
                    await context.flush()
                except LeaseLost:
                    beat = Beat(ok=False)
                except DatabaseUnavailable:
                    pause = heartbeat * random.uniform(0.2, 0.5)  # noqa: S311
                    continue
                watchdog.cancel()
                watchdog = loop.call_at(began + lease, context.interrupt, DatabaseUnavailable(service="postgres"))
                pause = heartbeat
                if not beat.ok:
                    context.interrupt(LeaseLost())
                elif beat.cancel_requested:
                    context.interrupt(JobCancelled())
                elif beat.deadline_passed:
                    context.interrupt(DeadlineExceeded(f"The job passed its deadline in stage {context.stage}."))
        finally:
            watchdog.cancel()
            self._nudges.pop(context.job.id, None)

    async def _settle(self, context: JobContext, how: Ending | Exception) -> Job | None:
        """Write how the job ended; tries until the database answers, the job turns out to be lost, or the worker must go."""
        how = cause(how) if isinstance(how, Exception) else how
        if isinstance(how, Exception) and not isinstance(how, ShieldError | Draining):
            log.error("job.bug", exc_info=how)
            how = InternalError()
        while True:
            try:
                await context.flush()
                job = await self._write(context, how)
            except LeaseLost:
                log.info("job.lost")
                return None
            except DatabaseUnavailable:
                if self._stopping:
                    log.warning("job.unsettled", advice="its lease lapses, then it resumes")
                    return None
                await asyncio.sleep(self._settings.relay.total_seconds() * random.uniform(0.5, 1.5))  # noqa: S311
                continue
            self._tell(context, job)
            return job

    async def _write(self, context: JobContext, how: Ending | ShieldError | Draining) -> Job:
        """The one write that an ending means; `LeaseLost` if the job is no longer ours."""
        claim, jobs = context.claim, self._repository
        match how:
            case Completed(outcome):
                return await jobs.finish(claim, Status.COMPLETED, outcome=outcome)
            case Failed(error):
                return await jobs.finish(claim, Status.FAILED, error=error)
            case Parked(stage):
                return await jobs.park(claim, stage)
            case Draining():
                return await jobs.hand_back(claim)
            case JobCancelled():
                return await jobs.cancelled(claim)
            case LeaseLost():
                raise how
        if isinstance(how, _WAITS) or _shared_outage(how):
            pause = max(how.retry_after or 0, self._settings.backoff_min.total_seconds())
            return await jobs.hand_back(claim, waiting_for(how), timedelta(seconds=pause * random.uniform(1, 1.25)))  # noqa: S311
        if how.retryable and not isinstance(how, DeadlineExceeded):
            return await jobs.fail_transient(claim, how)
        return await jobs.finish(claim, Status.FAILED, error=how)

    def _tell(self, context: JobContext, job: Job) -> None:
        context.stage, context.latest = job.stage, job.progress
        log.info("job.settled", status=str(job.status), stage=str(job.stage), error=job.error_code, waiting_for=job.waiting_for)
        context.publish("end" if job.status.ended else "progress", status=str(job.status))
        if job.status.ended:
            self._ended(job)

    # -- the loop's own needs -----------------------------------------------------------------------------------------

    async def _next(self) -> Claim | None:
        """The next job, or None; a database that is away is reported once and looked for again at the next tick."""
        try:
            await self._repository.unpark(self._runner)
            claim = await self._repository.claim_next(
                self.id, self._offers, self._runner, kinds=self._handlers, exclude=tuple(self._running)
            )
        except DatabaseUnavailable:
            if not self._database_away:
                log.warning("worker.database_away")
            self._database_away = True
            return None
        if self._database_away:
            log.info("worker.database_back")
            self._database_away = False
        return claim

    async def _sweep_now_and_then(self) -> None:
        """Sweep about once a lease; which of several processes does it is left to chance and a lock."""
        while True:
            await asyncio.sleep(self._settings.lease.total_seconds() * random.uniform(0.5, 1))  # noqa: S311
            try:
                swept = await self._repository.sweep(self._runner)
            except DatabaseUnavailable:
                continue
            if swept is not None and swept.unparked:
                self._wake.set()

    async def _stop_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stopping = True
        self._wake.set()

    async def _drain(self) -> None:
        """Ask all running jobs to leave at their next checkpoint, then cancel those that did not."""
        running = list(self._running.values())
        for context, _ in running:
            context.stop(Draining())
        if running:
            _, late = await asyncio.wait([task for _, task in running], timeout=self._settings.drain.total_seconds())
            for context, task in running:
                if task in late:
                    context.interrupt(Draining())


def cause(error: Exception) -> Exception:
    """What decides about the job: of an exception group, a reason to stop before a typed error before anything else."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [cause(part) for part in error.exceptions]
    for kinds in (_STOPS, _WAITS, (ShieldError,)):
        for leaf in leaves:
            if isinstance(leaf, kinds):
                return leaf
    return leaves[0]


def _shared_outage(error: ShieldError) -> bool:
    """A dependency that everybody uses does not answer: its breaker counts that, not the job; the job's deadline bounds the wait."""
    return isinstance(error, DependencyUnavailable) and "service" in error.details


def waiting_for(error: ShieldError) -> str:
    """The dependency's name as the job shows it."""
    return str(error.details.get("service") or ("postgres" if isinstance(error, DatabaseUnavailable) else error.code))


async def _despite_cancel(work: Coroutine[None, None, T], grace: float) -> T:
    """Await `work`; a cancellation from outside waits up to `grace` seconds for it, so that an ending is not written by halves."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=grace)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _wait(event: asyncio.Event, limit: float) -> None:
    """Return when `event` is set, at the latest after `limit` seconds."""
    try:
        await asyncio.wait_for(event.wait(), limit)
    except TimeoutError:
        return
