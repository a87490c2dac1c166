"""What a handler sees of the job it runs, and how it says how the job ended.

A handler calls `checkpoint()` between units of work, reports with `progress()` and `outcome()`, and returns an `Ending` or
raises. Progress is written at most once a second, at once when the stage changes, and with the end; a database that is
away for a moment costs a late number, not the job. What is reported never runs backwards, except `failed`, which may
shrink when a resumed job mends what failed before, and `percentage` stays below 100 until the job has ended well.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from shield.errors import DatabaseUnavailable, ShieldError
from shield.jobs.events import EventSink, JobEvent
from shield.jobs.model import Claim, DocumentOutcome, Job, Progress, Stage
from shield.jobs.repository import JobRepository
from shield.settings import JobSettings
from shield.telemetry.traces import StageSpans

ALMOST = 99.0
"""The most that a running job's percentage shows."""


class Draining(Exception):
    """The worker stops: leave at this safe point; the job goes back to the queue and resumes elsewhere or later."""


@dataclass(frozen=True)
class Completed:
    """At least one document was stored or was unchanged; `partial` if others failed."""

    outcome: Literal["complete", "partial"] = "complete"


@dataclass(frozen=True)
class Failed:
    """Nothing could be done, and trying again would not help."""

    error: ShieldError


@dataclass(frozen=True)
class Parked:
    """The rest is waiting for graph steps; the job comes back when they are through."""

    stage: Stage = Stage.GRAPH


Ending = Completed | Failed | Parked


class Handler(Protocol):
    """Runs jobs of one kind."""

    async def run(self, context: JobContext) -> Ending:
        """Do the job, or what is left of it (`context.claim.resumed`).

        What is raised decides what becomes of the job: `CircuitOpen`, `DependencyMisconfigured`, `DependencyThrottled`,
        `DatabaseUnavailable` and a `DependencyUnavailable` that names a shared service put it back and spend nothing; another
        retryable `ShieldError`, or anything unexpected, spends one of its errors; a `ShieldError` that no retry mends fails it.
        """


class JobContext:
    """One run of one job; `staged` is told each stage that ended and its seconds."""

    def __init__(
        self,
        claim: Claim,
        repository: JobRepository,
        events: EventSink,
        settings: JobSettings,
        staged: Callable[[str, float], None] = lambda _stage, _seconds: None,
    ) -> None:
        self.claim = claim
        self.stage = claim.job.stage
        self.latest = claim.job.progress
        self.spans = StageSpans(staged)
        self._repository = repository
        self._events = events
        self._pause = settings.progress.total_seconds()
        self._writing = asyncio.Lock()
        self._reports = self._saved = 0
        self._written_at = float("-inf")
        self._published = 0
        self._stop: Exception | None = None
        self._work: asyncio.Task[Any] | None = None

    @property
    def job(self) -> Job:
        """The job as it was when it was claimed."""
        return self.claim.job

    async def checkpoint(self) -> None:
        """Call between units of work; returns at once when the job may go on.

        Raises:
            JobCancelled: its owner asked to stop.
            Draining: the worker stops.
            LeaseLost: another worker has the job.
            DeadlineExceeded: its time is up.
        """
        if self._stop is not None:
            raise self._stop
        await self._write_if_due()

    async def progress(self, *, stage: Stage | None = None, **changes: Any) -> None:
        """Report new values of `Progress`'s fields (totals of the whole job, not increments), and a new stage if any.

        Raises:
            LeaseLost: another worker has the job.
        """
        moved = stage is not None and stage is not self.stage
        if stage is not None and (moved or self._reports == 0):
            self.spans.begin(stage)
        self.stage = stage or self.stage
        self.latest = advanced(self.latest, **changes)
        self._reports += 1
        if moved:
            await self.flush()
        else:
            await self._write_if_due()

    async def outcome(self, outcome: DocumentOutcome) -> None:
        """Record what became of one page or document; durable when this returns.

        Raises:
            LeaseLost: another worker has the job.
            DatabaseUnavailable: it could not be recorded.
        """
        await self._repository.record_outcome(self.claim, outcome)

    async def flush(self) -> None:
        """Write what was reported and is not written yet."""
        async with self._writing:
            if (reports := self._reports) == self._saved:
                return
            self._written_at = asyncio.get_running_loop().time()
            self.publish("progress")
            with contextlib.suppress(DatabaseUnavailable):  # the next write brings it
                await self._repository.save_progress(self.claim, self.latest, self.stage)
                self._saved = reports

    def publish(self, name: str, **more: Any) -> None:
        """Tell those who watch the job."""
        self._published += 1
        data = {"stage": str(self.stage), "progress": dataclasses.asdict(self.latest), **more}
        self._events.publish(self.job.id, JobEvent(f"{self.claim.fence}-{self._published}", name, data))

    def stop(self, reason: Exception) -> None:
        """Make the next checkpoint raise `reason`; the first reason stands."""
        self._stop = self._stop or reason

    def attach(self, work: asyncio.Task[Any]) -> None:
        """Name the task that runs the handler, for `interrupt`."""
        self._work = work

    def interrupt(self, reason: Exception) -> None:
        """Stop now: cancel the handler; the first reason stands."""
        self.stop(reason)
        if self._work is not None:
            self._work.cancel()

    @property
    def stopped(self) -> Exception | None:
        """Why the job must stop, if it must."""
        return self._stop

    async def _write_if_due(self) -> None:
        if self._reports != self._saved and asyncio.get_running_loop().time() - self._written_at >= self._pause:
            await self.flush()


def advanced(progress: Progress, **changes: Any) -> Progress:
    """`progress` with `changes`, none of which runs backwards (but `failed`) or beyond its bounds.

    Raises:
        TypeError: there is no such field.
    """
    new = dataclasses.replace(progress, **changes)
    kept = {
        name: max(value, getattr(progress, name)) for name, value in dataclasses.asdict(new).items() if name not in {"failed", "percentage"}
    }
    percentage = max(progress.percentage, min(ALMOST, float(new.percentage)))
    return dataclasses.replace(new, **kept, failed=max(0, new.failed), percentage=percentage)
