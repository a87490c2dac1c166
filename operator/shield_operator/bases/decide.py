"""What a KnowledgeBase needs at this moment: a move to another embedding model, or the next step of its deletion. Pure functions.

**A move is asked for once for each generation of the spec.** What an administrator does afterwards with the orchestrator's own commands
(roll back, discard, cancel) stands until the spec changes; the condition `Reindexing` says so, and its reason is all the memory
there is. Only a job that failed is tried again by itself, after a pause. Going back to the model before, within the time
that its collection is kept, is a rollback and takes effect at once.

**A deletion is over when the orchestrator's job has completed**, which it does only with a proof, and readers no longer meet the base. A job
counts if it was made after the object's deletion: an older one proves nothing about what came later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from shield_operator.api.meta import Condition, ConditionStatus
from shield_operator.bases.port import TRACES_LEFT, BaseView, KbJob, Space

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


class Reason(StrEnum):
    """Why Ready and Reindexing are as they are."""

    AVAILABLE = "Available"
    INVALID_SPEC = "InvalidSpec"
    NAME_CONFLICT = "NameConflict"
    GRAPH_DIFFERS = "GraphDiffers"
    EMBEDDING_NOT_CONFIGURED = "EmbeddingNotConfigured"
    REFUSED = "Refused"
    ORCHESTRATOR_UNAVAILABLE = "OrchestratorUnavailable"
    DELETING = "Deleting"
    DELETION_FAILED = "DeletionFailed"
    DELETION_UNPROVEN = "DeletionUnproven"

    UP_TO_DATE = "UpToDate"
    RUNNING = "Running"
    DIFFERS = "Differs"
    FAILED = "Failed"
    GIVEN_UP = "GivenUp"
    OVERRIDDEN = "Overridden"


@dataclass(frozen=True)
class Said:
    """What a condition is to say."""

    status: ConditionStatus
    reason: Reason
    message: str


class Move(StrEnum):
    """What to ask the orchestrator for."""

    NOTHING = "nothing"
    REINDEX = "reindex"
    ROLLBACK = "rollback"


@dataclass(frozen=True)
class Decision:
    """What to ask for, and what `Reindexing` says if that is accepted."""

    move: Move
    said: Said


def decide_move(
    wish: Space | None, view: BaseView, job: KbJob | None, *, was: Condition | None, generation: int, now: datetime, pause: timedelta
) -> Decision:
    """How the base gets to the model that the spec names.

    Args:
        wish: the spec's model; None: whatever it has.
        view: the base as it is.
        job: that of `view.reindex`, if it is known.
        was: the condition Reindexing as it was last said.
        generation: the spec's.
        now: the time.
        pause: after a failed job.
    """
    busy = view.reindex is not None and (job is not None and not job.ended)
    if busy and view.reindex is not None:
        return _stay(TRUE, Reason.RUNNING, f"A shadow collection of {view.reindex.embedding} is built; {view.embedding} answers.")
    if wish is None or wish == view.embedding:
        return _stay(FALSE, Reason.UP_TO_DATE, f"It is searched by {view.embedding}.")
    before = was if was is not None and was.observed_generation == generation else None
    if view.reindex is not None and view.reindex.embedding == wish and job is not None:
        if view.reindex.state == "ready":
            message = (
                f"{wish} answers the golden questions differently ({job.code}). Flip or discard it: shield kb flip|discard {view.name}."
            )
            return _stay(TRUE, Reason.DIFFERS, message)
        if job.status == "cancelled":
            return _stay(FALSE, Reason.GIVEN_UP, f"The move to {wish} was cancelled. Change the spec to ask for it again.")
        if before is None or before.reason != Reason.FAILED:
            return _stay(FALSE, Reason.FAILED, f"The move to {wish} failed ({job.code}); it is tried again.")
    return _without_a_job(wish, view, before, again=before is not None and now >= before.last_transition_time + pause)


def _without_a_job(wish: Space, view: BaseView, before: Condition | None, *, again: bool) -> Decision:
    kept = view.kept() == wish
    reason = before.reason if before is not None else None
    if before is not None and (reason == Reason.OVERRIDDEN or (kept and reason in {Reason.UP_TO_DATE, Reason.RUNNING})):
        message = f"It is searched by {view.embedding}, as an administrator decided. Change the spec to ask for {wish} again."
        return _stay(FALSE, Reason.OVERRIDDEN, message)
    if reason in {Reason.DIFFERS, Reason.GIVEN_UP}:
        return _stay(FALSE, Reason.GIVEN_UP, f"The move to {wish} was given up. Change the spec to ask for it again.")
    if before is not None and reason == Reason.FAILED and not again:
        return _stay(FALSE, Reason.FAILED, before.message)
    if kept:
        return Decision(Move.ROLLBACK, Said(FALSE, Reason.UP_TO_DATE, f"It is searched by {wish}."))
    message = f"A shadow collection of {wish} is built; {view.embedding} answers."
    return Decision(Move.REINDEX, Said(TRUE, Reason.RUNNING, message))


def _stay(status: ConditionStatus, reason: Reason, message: str) -> Decision:
    return Decision(Move.NOTHING, Said(status, reason, message))


class Step(StrEnum):
    """What a deletion does next."""

    BEGIN = "begin"
    RETRY = "retry"
    WAIT = "wait"
    RELEASE = "release"


@dataclass(frozen=True)
class Deletion:
    """The next step, about which job, and what Ready says meanwhile."""

    step: Step
    said: Said
    job: KbJob | None = None


def decide_deletion(jobs: Sequence[KbJob], since: datetime, *, exists: bool, now: datetime, pause: timedelta) -> Deletion:
    """How far the deletion of a base is.

    Args:
        jobs: those that deleted something of it, newest first.
        since: when the object was deleted.
        exists: readers may still meet the base.
        now: the time.
        pause: after a failed job.
    """
    ours = [job for job in jobs if job.created_at >= since]
    job = next((job for job in ours if not job.ended), ours[0] if ours else None)
    if job is None or (job.status == "completed" and exists):
        return Deletion(Step.BEGIN, Said(FALSE, Reason.DELETING, "Its knowledge is about to be deleted."))
    if not job.ended:
        return Deletion(Step.WAIT, Said(FALSE, Reason.DELETING, f"Job {job.job_id} deletes its knowledge."), job)
    if job.status == "completed":
        return Deletion(Step.RELEASE, Said(FALSE, Reason.DELETING, f"Job {job.job_id} has proven that its knowledge is gone."), job)
    if job.code == TRACES_LEFT:
        return Deletion(Step.WAIT, unproven(job), job)
    said = Said(FALSE, Reason.DELETION_FAILED, f"Job {job.job_id} could not delete it ({job.code}); it is tried again.")
    again = job.finished_at is None or now >= job.finished_at + pause
    return Deletion(Step.RETRY if again else Step.WAIT, said, job)


def unproven(job: KbJob) -> Said:
    """What Ready says of a deletion whose proof found something; only a person can go on from there."""
    message = (
        f"Job {job.job_id} deleted it, but its proof found traces. See the proof for where; once that is mended, remove the finalizer."
    )
    return Said(FALSE, Reason.DELETION_UNPROVEN, message)
