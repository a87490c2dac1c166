"""The status, as it will be: starts from the one that was read, and changes only what is said.

`Complete` tells the whole story in its reason (`Pending`, `Running`, `Suspended`, ..., see `Reason`), so a step such as *a pod runs now* is a
transition that survives a restart: its Event is emitted with the write that makes it, and not again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shield_operator.api.ingestjob import ConditionType, IngestJobStatus, Progress, Reason
from shield_operator.api.meta import Condition, ConditionStatus, find, with_condition
from shield_operator.ingestjobs.verdict import End
from shield_operator.ingestjobs.view import Child, View
from shield_operator.orchestrator import Row

_MESSAGE = 1024


class EventReason(StrEnum):
    """The only four."""

    STARTED = "Started"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True)
class Event:
    """What `kubectl describe` shows."""

    reason: EventReason
    message: str

    @property
    def warning(self) -> bool:
        """Its type."""
        return self.reason is EventReason.FAILED


class Draft:
    """A status in the making."""

    def __init__(self, view: View, now: datetime) -> None:
        self._view = view
        self._old = view.subject.status
        self._now = now
        self._conditions = self._old.conditions
        self._fields: dict[str, object] = {}
        self.events: list[Event] = []
        for type_ in ConditionType:
            if find(self._conditions, type_) is None:
                self._set(type_, _FIRST[type_][0], _FIRST[type_][1])
        self._row(view.row)

    def accepted(self) -> None:
        """Nothing is against it."""
        self._set(ConditionType.ACCEPTED, ConditionStatus.TRUE, Reason.ACCEPTED)

    def not_accepted(self, reason: str, message: str) -> None:
        """Something is."""
        self._set(ConditionType.ACCEPTED, ConditionStatus.FALSE, reason, message)
        self._set(ConditionType.COMPLETE, ConditionStatus.FALSE, reason, message)

    def suspended(self, reason: Reason, message: str) -> None:
        """It may not run."""
        self._set(ConditionType.SUSPENDED, ConditionStatus.TRUE, reason, message)
        self._set(ConditionType.COMPLETE, ConditionStatus.FALSE, reason, message)

    def resumed(self) -> None:
        """It may run."""
        was = find(self._conditions, ConditionType.SUSPENDED)
        again = was is not None and (was.true or was.reason == Reason.RESUMED)
        self._set(ConditionType.SUSPENDED, ConditionStatus.FALSE, Reason.RESUMED if again else Reason.NOT_SUSPENDED)

    def pending(self, message: str) -> None:
        """No pod runs yet."""
        self._set(ConditionType.COMPLETE, ConditionStatus.FALSE, Reason.PENDING, message)

    def running(self) -> None:
        """A pod runs, or ran and will be replaced."""
        was = find(self._conditions, ConditionType.COMPLETE)
        if was is None or was.reason != Reason.RUNNING:
            self.events.append(Event(EventReason.RUNNING, f"A pod of Job {self._fields.get('job_name', self._old.job_name)} runs."))
        self._set(ConditionType.COMPLETE, ConditionStatus.FALSE, Reason.RUNNING)

    def was_running(self, child: Child) -> bool:
        """A pod of this Job was seen to run, since it was allowed to."""
        was = find(self._old.conditions, ConditionType.COMPLETE)
        return was is not None and was.reason == Reason.RUNNING and self._old.job_name == child.name

    def running_since(self) -> datetime | None:
        """When it was last allowed to run; None while it is not."""
        condition = find(self._conditions, ConditionType.SUSPENDED)
        return condition.last_transition_time if condition is not None and not condition.true else None

    def jobs_made(self) -> int:
        """How many Jobs were made for it so far."""
        last = (self._old.job_name or "").rpartition("-")[2]
        return max([int(last) if last.isdecimal() else 0, *(child.number for child in self._view.children)])

    def job(self, child: Child) -> None:
        """This Job runs it."""
        pods = child.active + child.failed + child.succeeded
        self.created(child.name, child.number - 1 + max(1, pods))

    def created(self, name: str, attempts: int) -> None:
        """A Job of that name runs it."""
        if self._old.start_time is None:
            self._fields["start_time"] = self._now.replace(microsecond=0)
            self.events.append(Event(EventReason.STARTED, f"Created Job {name}."))
        self._fields["job_name"] = name
        self._fields["attempts"] = max(self._old.attempts or 0, attempts)

    def end(self, end: End, at: datetime) -> None:
        """It is over."""
        message = end.message[:_MESSAGE]
        self._set(ConditionType.COMPLETE, ConditionStatus.TRUE if end.complete else ConditionStatus.FALSE, end.reason, message)
        if end.complete:
            self.events.append(Event(EventReason.SUCCEEDED, message))
        else:
            self._set(ConditionType.FAILED, ConditionStatus.TRUE, end.reason, message)
            self.events.append(Event(EventReason.FAILED, f"{end.reason}: {message}"[:_MESSAGE]))
        self._fields["completion_time"] = at.replace(microsecond=0)

    def status(self) -> IngestJobStatus:
        """The status."""
        generation = self._view.subject.meta.generation
        fields = {**self._fields, "conditions": self._conditions, "observed_generation": generation}
        return self._old.model_copy(update=fields)

    def _set(self, type_: ConditionType, status: ConditionStatus, reason: str, message: str = "") -> None:
        message, generation = message[:_MESSAGE], self._view.subject.meta.generation
        old = find(self._conditions, type_)
        if old is not None and (old.status, old.reason, old.message, old.observed_generation) == (status, reason, message, generation):
            return  # most are said again at each look
        new = Condition(
            type=type_,
            status=status,
            reason=str(reason),
            message=message,
            last_transition_time=self._now,
            observed_generation=generation,
        )
        self._conditions = with_condition(self._conditions, new)

    def _row(self, row: Row | None) -> None:
        if row is None:
            return
        self._fields["job_id"] = row.job_id
        if row.outcome:
            self._fields["outcome"] = row.outcome[:64]
        told = row.progress
        numbers = {name: max(0, getattr(told, name)) for name in ("pages_found", "pages_fetched", "documents", "chunks", "failed", "bytes")}
        percentage = None if told.percentage is None else max(0, min(100, int(told.percentage)))
        new = Progress(stage=(row.stage or "")[:64] or None, percentage=percentage, **numbers)
        old = self._old.progress
        if old is None or old.model_copy(update={"last_updated_time": None}) != new:
            read = (row.updated_at or self._now).replace(microsecond=0)
            self._fields["progress"] = new.model_copy(update={"last_updated_time": read})


_FIRST = {
    ConditionType.ACCEPTED: (ConditionStatus.UNKNOWN, Reason.PENDING),
    ConditionType.SUSPENDED: (ConditionStatus.FALSE, Reason.NOT_SUSPENDED),
    ConditionType.COMPLETE: (ConditionStatus.FALSE, Reason.PENDING),
    ConditionType.FAILED: (ConditionStatus.FALSE, Reason.NOT_FAILED),
}
