"""One attempt at one job: its handler, a heartbeat beside it, and how it ended written down.

The heartbeat renews the lease and stops the handler when its owner cancelled, its deadline passed, its fence is outdated, or
the lease could not be renewed in time. How the handler ended is then written, again and again while the database is away;
only when the process has to go first does the lease lapse, which the next worker counts as a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import TypeVar

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
from shield.jobs.model import Beat, Job, Status
from shield.jobs.repository import JobRepository
from shield.resilience.waiting import wait
from shield.settings import JobSettings
from shield.telemetry.traces import span_from
from shield.worker.context import Completed, Draining, Ending, Failed, Handler, JobContext, Parked

T = TypeVar("T")

log = structlog.get_logger(__name__)

_WAITS = (CircuitOpen, DependencyMisconfigured, DependencyThrottled, DatabaseUnavailable)
"""The job is fine, something else is not: it goes back and spends nothing."""

_STOPS = (LeaseLost, JobCancelled, Draining, DeadlineExceeded)


class Attempt:
    """The run of one claimed job.

    Args:
        context: the job.
        handler: does the work.
        repository: where jobs live.
        settings: durations.
        stopping: set when the process has to go.
        ended: called with the job if it reached an end state.
    """

    def __init__(
        self,
        context: JobContext,
        handler: Handler,
        repository: JobRepository,
        settings: JobSettings,
        *,
        stopping: asyncio.Event,
        ended: Callable[[Job], None],
    ) -> None:
        self._context = context
        self._handler = handler
        self._repository = repository
        self._settings = settings
        self._stopping = stopping
        self._ended = ended
        self._nudge = asyncio.Event()

    def nudge(self) -> None:
        """Beat now instead of later: there may be a cancel."""
        self._nudge.set()

    def stop(self, reason: Exception) -> None:
        """End at the next checkpoint."""
        self._context.stop(reason)

    def interrupt(self, reason: Exception) -> None:
        """End now."""
        self._context.interrupt(reason)

    async def run(self) -> Job | None:
        """Run the handler to its end and write that; None if the job was lost on the way. Cancel it to hand the job back."""
        context = self._context
        grace = self._settings.drain.total_seconds()
        with structlog.contextvars.bound_contextvars(job_id=str(context.job.id)):
            try:
                how = await self._supervise()
            except asyncio.CancelledError:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace):
                        await self._settle(Draining())
                raise
            return await _despite_cancel(self._settle(how), grace)

    async def _supervise(self) -> Ending | Exception:
        """Run the handler beside its heartbeat; returns what it returned or raised, or why it was stopped."""
        context = self._context
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(self._work())
            context.attach(work)
            keeper = tasks.create_task(self._keep(work))
            await asyncio.wait([work])
            keeper.cancel()
        if work.cancelled():
            return context.stopped or Draining()
        how = work.result()
        return context.stopped if isinstance(how, Exception) and context.stopped is not None else how

    async def _work(self) -> Ending | Exception:
        job, claim = self._context.job, self._context.claim
        try:
            with span_from(job.traceparent, f"job {job.kind}", {"shield.job.kind": job.kind, "shield.job.fence": claim.fence}):
                try:
                    return await self._handler.run(self._context)
                finally:
                    self._context.spans.end()
        except Exception as error:  # noqa: BLE001 - the border of a job: whatever a handler raises decides about its job, not about the worker
            return error

    async def _keep(self, work: asyncio.Task[Ending | Exception]) -> None:
        """Renew the lease while the handler is at work, and stop it when there is a reason.

        The watchdog does not wait for the database: it stops the handler when the last good lease has run out.
        """
        context, loop = self._context, asyncio.get_running_loop()
        lease, heartbeat = self._settings.lease.total_seconds(), self._settings.heartbeat.total_seconds()
        watchdog = loop.call_later(lease, context.interrupt, DatabaseUnavailable(service="postgres"))
        pause = heartbeat
        try:
            while not work.done() and (context.stopped is None or isinstance(context.stopped, Draining)):
                await wait(self._nudge, pause)
                self._nudge.clear()
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

    async def _settle(self, how: Ending | Exception) -> Job | None:
        """Write how the job ended; tries until the database answers, the job turns out to be lost, or the worker must go."""
        context = self._context
        how = cause(how) if isinstance(how, Exception) else how
        if isinstance(how, Exception) and not isinstance(how, ShieldError | Draining):
            log.error("job.bug", exc_info=how)
            how = InternalError()
        while True:
            try:
                await context.flush()
                job = await self._write(how)
            except LeaseLost:
                log.info("job.lost")
                return None
            except DatabaseUnavailable:
                if self._stopping.is_set():
                    log.warning("job.unsettled", advice="its lease lapses, then it resumes")
                    return None
                await asyncio.sleep(self._settings.relay.total_seconds() * random.uniform(0.5, 1.5))  # noqa: S311
                continue
            self._tell(job)
            return job

    async def _write(self, how: Ending | ShieldError | Draining) -> Job:
        """The one write that an ending means; `LeaseLost` if the job is no longer ours."""
        claim, jobs = self._context.claim, self._repository
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

    def _tell(self, job: Job) -> None:
        context = self._context
        context.stage, context.latest = job.stage, job.progress
        log.info("job.settled", status=str(job.status), stage=str(job.stage), error=job.error_code, waiting_for=job.waiting_for)
        context.publish("end" if job.status.ended else "progress", status=str(job.status))
        if job.status.ended:
            self._ended(job)


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
