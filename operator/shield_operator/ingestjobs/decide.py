"""What follows: a pure function from what is to what to do, and when to look again.

It remembers nothing: every decision comes from the view, so it is the same after a crash, on another replica, or when asked twice. Its result
is in the order in which it is carried out: first the Job, then one write of the status if it changed, then Events, and only behind a
terminal status what makes way for it. A terminal condition never changes. Whatever is interrupted in between is found by the next look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from shield_operator.api.ingestjob import IngestJobSpec, IngestJobStatus, Reason
from shield_operator.ingestjobs.status import Draft, Event
from shield_operator.ingestjobs.verdict import End, judge, judge_row
from shield_operator.ingestjobs.view import Base, Child, Claim, Subject, View
from shield_operator.names import MANAGER, job_name

_DEFAULT_TTL = 86_400


class Do(StrEnum):
    """What can be done."""

    CREATE_JOB = "create_job"
    SUSPEND_JOB = "suspend_job"
    RESUME_JOB = "resume_job"
    SET_DEADLINE = "set_deadline"
    WRITE_STATUS = "write_status"
    EMIT_EVENT = "emit_event"
    CANCEL_ROW = "cancel_row"
    DELETE_JOB = "delete_job"
    DELETE_SELF = "delete_self"


@dataclass(frozen=True)
class Action:
    """One thing to do."""

    do: Do
    child: Child | None = None
    """Which Job, where there is one."""
    number: int = 0
    """Of the Job to create."""
    seconds: int = 0
    status: IngestJobStatus | None = None
    event: Event | None = None


@dataclass(frozen=True)
class Plan:
    """What to do, in this order, and when to look again."""

    actions: tuple[Action, ...] = ()
    after: float | None = None
    """Seconds; None: when something changes."""

    def does(self, do: Do) -> bool:
        """It holds such an action."""
        return any(action.do is do for action in self.actions)


@dataclass(frozen=True)
class Limits:
    """How long and how often; durations in seconds."""

    row_patience: float = 30
    """A finished Job waits that long for the orchestrator's word."""
    row_poll: float = 2
    recheck: float = 10
    job_retention: float = 300
    max_jobs: int = 20


def decide(view: View, now: datetime, limits: Limits) -> Plan:
    """What follows from the view, now."""
    subject = view.subject
    if subject.managed_by != MANAGER:
        return Plan()
    if subject.meta.deleting:
        return Plan(_cancel(view))
    if subject.status.finished:
        return _tidy(view, now, limits)
    if subject.spec is None:
        return _end(view, now, End.failed(Reason.INVALID_SPEC, subject.problem, refused=True))
    if view.name_taken:
        return _end(view, now, End.failed(Reason.JOB_NAME_CONFLICT, f"Job {view.name_taken} exists and belongs to somebody else."))
    if view.unacceptable:
        return _end(view, now, End.failed(Reason.INVALID_SPEC, view.unacceptable, refused=True))
    return _progress(view, subject.spec, now, limits)


def _progress(view: View, spec: IngestJobSpec, now: datetime, limits: Limits) -> Plan:
    """Of an IngestJob that has not ended and is sound."""
    finished = [child for child in view.children if child.finish]
    if finished:
        child = max(finished, key=lambda child: child.number)
        waited = (now - child.finish.at).total_seconds() if child.finish else 0
        if view.row_unknown and waited < limits.row_patience:
            return Plan(after=limits.row_poll)
        return _end(view, now, judge(child, view.row, view.pod, strict=spec.strict), child)
    live = sorted((child for child in view.children if not child.deleting), key=lambda child: child.number)
    if not live and view.subject.status.job_name and view.row is not None and view.row.ended:
        return _end(view, now, judge_row(view.row, strict=spec.strict))
    if spec.suspend:
        return _suspend(view, live, now)
    if live:
        return _run(view, spec, live, now)
    if view.children:
        return Plan(after=limits.recheck)  # it is being deleted; two pods of one row would be in each other's way
    return _begin(view, spec, now, limits)


def _suspend(view: View, live: list[Child], now: datetime) -> Plan:
    draft = Draft(view, now)
    draft.suspended(Reason.SUSPENDED, "The IngestJob is suspended.")
    actions = []
    for child in live:
        if child.queued:  # Kueue would admit it again: only without a Job is it out of the queue
            actions.append(Action(Do.DELETE_JOB, child))
        elif not child.suspended:
            actions.append(Action(Do.SUSPEND_JOB, child))
    return Plan((*actions, *_writes(view.subject, draft)))


def _run(view: View, spec: IngestJobSpec, live: list[Child], now: datetime) -> Plan:
    """Of one whose Job exists."""
    child = live[-1]
    actions = [Action(Do.DELETE_JOB, older) for older in live[:-1]]
    draft = Draft(view, now)
    draft.accepted()
    draft.job(child)
    if child.deadline != spec.active_deadline_seconds:
        actions.append(Action(Do.SET_DEADLINE, child, seconds=spec.active_deadline_seconds))
    if child.suspended and child.queued:
        draft.suspended(Reason.QUEUED_BY_KUEUE, "Kueue has not admitted the Job yet.")
        return Plan((*actions, *_writes(view.subject, draft)))
    if child.suspended:
        actions.append(Action(Do.RESUME_JOB, child))
        child = replace(child, suspended=False, started=None)
    draft.resumed()
    if child.running or draft.was_running(child):  # a pod that is being replaced waits under the active deadline
        draft.running()
        return Plan((*actions, *_writes(view.subject, draft)))
    draft.pending("A pod was not started yet.")
    waits_until = pending_until(child, spec, draft)
    if now >= waits_until:
        why = f": {view.pod.waiting}" if view.pod and view.pod.waiting else ""
        message = f"No pod of Job {child.name} ran within {spec.pending_deadline_seconds} s{why}."
        return _end(view, now, End.failed(Reason.PENDING_DEADLINE_EXCEEDED, message), child)
    return Plan((*actions, *_writes(view.subject, draft)), after=(waits_until - now).total_seconds())


def pending_until(child: Child, spec: IngestJobSpec, draft: Draft | None = None) -> datetime:
    """Until when a pod must run: pauses do not count, so it is measured from the last (re)start of the Job."""
    allowed = draft.running_since() if draft else None
    begun = max(child.created, child.started or child.created, allowed or child.created)
    return begun + timedelta(seconds=spec.pending_deadline_seconds)


def _begin(view: View, spec: IngestJobSpec, now: datetime, limits: Limits) -> Plan:
    """Of one that has no Job."""
    subject = view.subject
    draft = Draft(view, now)
    draft.resumed()
    if view.excess:
        return _end(view, now, End.failed(Reason.RESOURCES_ABOVE_MAXIMUM, view.excess, refused=True))
    number = draft.jobs_made() + 1
    if number > limits.max_jobs:
        return _end(view, now, End.failed(Reason.RETRIES_EXHAUSTED, f"Its Job was deleted {limits.max_jobs} times."))
    if hurdle := _hurdle(view, spec):
        reason, message = hurdle
        waits_until = max(subject.meta.creation_timestamp or now, draft.running_since() or now) + timedelta(
            seconds=spec.pending_deadline_seconds
        )
        if now >= waits_until:
            waited = f"Not accepted within {spec.pending_deadline_seconds} s: {message}"
            return _end(view, now, End.failed(Reason.PENDING_DEADLINE_EXCEEDED, waited))
        draft.not_accepted(reason, message)
        return Plan(_writes(subject, draft), after=min(limits.recheck, (waits_until - now).total_seconds()))
    draft.accepted()
    if not view.place_free:
        draft.pending("The namespace runs as many Jobs as it may; this one waits for a free place.")
        return Plan(_writes(subject, draft), after=limits.recheck)
    if view.refused:
        draft.pending(f"The Job cannot be created now: {view.refused}")
        return Plan(_writes(subject, draft), after=limits.recheck)
    draft.created(job_name(subject.meta.name, number), number)
    if subject.queued:
        draft.suspended(Reason.QUEUED_BY_KUEUE, "Kueue has not admitted the Job yet.")
    else:
        draft.pending("A pod was not started yet.")
    after = None if subject.queued else float(spec.pending_deadline_seconds)
    return Plan((Action(Do.CREATE_JOB, number=number), *_writes(subject, draft)), after=after)


def _hurdle(view: View, spec: IngestJobSpec) -> tuple[Reason, str] | None:
    """What keeps it from being accepted and may pass."""
    name = spec.knowledge_base
    documents = spec.source.documents
    claim = documents.persistent_volume_claim.claim_name if documents and documents.persistent_volume_claim else ""
    if view.base is Base.NOT_FOUND:
        return Reason.KNOWLEDGE_BASE_NOT_FOUND, f"There is no KnowledgeBase {name} in this namespace."
    if view.base is Base.NOT_READY:
        return Reason.KNOWLEDGE_BASE_NOT_READY, f"KnowledgeBase {name} is not ready."
    if view.claim is Claim.NOT_FOUND:
        return Reason.CLAIM_NOT_FOUND, f"There is no PersistentVolumeClaim {claim} in this namespace."
    if view.claim is Claim.NOT_LABELLED:
        return Reason.CLAIM_NOT_LABELLED, f"PersistentVolumeClaim {claim} lacks the label shield.hx-citadel.io/ingest=true."
    return None


def _end(view: View, now: datetime, end: End, child: Child | None = None) -> Plan:
    """A terminal status, and then: no pod runs on, and the row ends with the IngestJob."""
    draft = Draft(view, now)
    if child is not None:
        draft.job(child)
    if end.refused:
        draft.not_accepted(end.reason, end.message)
    draft.end(end, child.finish.at if child and child.finish else now)
    running = tuple(Action(Do.DELETE_JOB, one) for one in view.children if one.finish is None and not one.deleting)
    needless = end.complete or not (view.children or view.subject.status.job_name)
    cancel = () if needless else _cancel(view)
    return Plan((*_writes(view.subject, draft), *cancel, *running), after=1.0 if running else 0.0)


def _cancel(view: View) -> tuple[Action, ...]:
    return () if view.row is not None and view.row.ended else (Action(Do.CANCEL_ROW),)


def _tidy(view: View, now: datetime, limits: Limits) -> Plan:
    """Of one that has ended: the last numbers are told if nobody could tell them at the end; its Jobs go, later itself."""
    subject, status = view.subject, view.subject.status
    ended = status.completion_time or now
    ttl = subject.spec.ttl_seconds_after_finished if subject.spec else _DEFAULT_TTL
    expires = ended + timedelta(seconds=ttl)
    if now >= expires:
        return Plan((Action(Do.DELETE_SELF),))
    looks = [expires]
    actions = []
    for child in view.children:
        if child.deleting:
            continue
        kept_until = (child.finish.at if child.finish else now) + timedelta(seconds=limits.job_retention if child.finish else 0)
        if now >= kept_until:
            actions.append(Action(Do.DELETE_JOB, child))
        else:
            looks.append(kept_until)
    told = view if view.row is not None and view.row.ended else replace(view, row=None)  # numbers, not the verdict: that one stands
    return Plan((*actions, *_writes(subject, Draft(told, now))), after=(min(looks) - now).total_seconds())


def _writes(subject: Subject, draft: Draft) -> tuple[Action, ...]:
    """One status write if anything changed, then the Events that tell of it."""
    status = draft.status()
    if status == subject.status:
        return ()
    return (Action(Do.WRITE_STATUS, status=status), *(Action(Do.EMIT_EVENT, event=event) for event in draft.events))
