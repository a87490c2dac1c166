"""What is: everything that decides about one IngestJob, at one moment, without anything else of the cluster's objects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import ValidationError

from shield_operator.api.ingestjob import IngestJob, IngestJobSpec, IngestJobStatus
from shield_operator.api.meta import ObjectMeta
from shield_operator.cluster import Key, Obj
from shield_operator.names import MANAGER
from shield_operator.orchestrator import Row

KUEUE = "kueue.x-k8s.io/"
QUEUE_LABEL = f"{KUEUE}queue-name"


@dataclass(frozen=True)
class Subject:
    """The IngestJob."""

    meta: ObjectMeta
    spec: IngestJobSpec | None
    """None if it cannot be read, which `problem` explains."""
    status: IngestJobStatus
    managed_by: str
    problem: str = ""

    @property
    def key(self) -> Key:
        """Its address."""
        return Key(self.meta.namespace, self.meta.name)

    @property
    def queued(self) -> bool:
        """Kueue decides when its Job runs."""
        return QUEUE_LABEL in self.meta.labels


@dataclass(frozen=True)
class Finish:
    """How a Job ended."""

    complete: bool
    at: datetime
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Child:
    """A Job of ours."""

    name: str
    uid: str
    number: int
    """Which one of the IngestJob's Jobs, from 1."""
    created: datetime
    deleting: bool = False
    suspended: bool = False
    queued: bool = False
    """Kueue decides when it runs."""
    deadline: int | None = None
    started: datetime | None = None
    """When the Job controller last began (or resumed) it."""
    ready: int = 0
    active: int = 0
    failed: int = 0
    succeeded: int = 0
    finish: Finish | None = None

    @property
    def running(self) -> bool:
        """A pod of it runs, or ran."""
        return bool(self.ready or self.failed or self.succeeded)


class Base(StrEnum):
    """The knowledge base that the IngestJob names."""

    READY = "ready"
    NOT_READY = "not_ready"
    NOT_FOUND = "not_found"


class Claim(StrEnum):
    """The PersistentVolumeClaim that the IngestJob names."""

    NONE = "none"
    READABLE = "readable"
    NOT_LABELLED = "not_labelled"
    NOT_FOUND = "not_found"


@dataclass(frozen=True)
class Pod:
    """The last pod of a Job."""

    exit_code: int | None = None
    oom_killed: bool = False
    error_code: str = ""
    """The stable code of the error that it printed last."""
    waiting: str = ""
    """Why it does not run."""


@dataclass(frozen=True)
class View:
    """One IngestJob's world."""

    subject: Subject
    children: tuple[Child, ...] = ()
    row: Row | None = None
    row_unknown: bool = False
    """The orchestrator was asked, and did not answer."""
    base: Base = Base.READY
    claim: Claim = Claim.NONE
    pod: Pod | None = None
    excess: str = ""
    """What it asks for beyond the operator's maximum."""
    place_free: bool = True
    """The namespace may have one more Job."""
    name_taken: str = ""
    """The next Job's name, if it belongs to a stranger."""
    unacceptable: str = ""
    """What the API server has against the Job, for good."""
    refused: str = ""
    """What it has against the Job now: a permission, a quota, an admission rule."""


def subject_of(obj: Obj) -> Subject:
    """Read an IngestJob; a spec that cannot be read is told, not raised."""
    spec = obj.get("spec") or {}
    status = IngestJobStatus.model_validate(obj.get("status") or {})
    managed_by = spec.get("managedBy") or MANAGER
    try:
        parsed = IngestJob.model_validate({"metadata": obj["metadata"], "spec": spec})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the object"
        meta = ObjectMeta.model_validate(obj["metadata"])
        return Subject(meta, None, status, managed_by, f"{where}: {first['msg']}")
    return Subject(parsed.metadata, parsed.spec, status, managed_by)


def child_of(obj: Obj) -> Child:
    """Read a Job of ours, as the cache keeps it."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    number = meta["name"].rpartition("-")[2]
    return Child(
        name=meta["name"],
        uid=meta["uid"],
        number=int(number) if number.isdecimal() else 0,
        created=_time(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        suspended=bool(spec.get("suspend")),
        queued=QUEUE_LABEL in (meta.get("labels") or {}),
        deadline=spec.get("activeDeadlineSeconds"),
        started=_time(status["startTime"]) if status.get("startTime") else None,
        ready=status.get("ready") or 0,
        active=status.get("active") or 0,
        failed=status.get("failed") or 0,
        succeeded=status.get("succeeded") or 0,
        finish=_finish(status),
    )


def slim_job(obj: Obj) -> Obj:
    """Of a Job what `child_of` reads: no pod template."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels", "ownerReferences")
    return {
        "metadata": {name: meta[name] for name in kept if name in meta},
        "spec": {name: spec[name] for name in ("suspend", "activeDeadlineSeconds") if name in spec},
        "status": {
            name: status[name] for name in ("startTime", "ready", "failed", "succeeded", "completionTime", "conditions") if status.get(name)
        },
    }


def _finish(status: Obj) -> Finish | None:
    for condition in status.get("conditions") or ():
        if condition["type"] in {"Complete", "Failed"} and condition["status"] == "True":
            return Finish(
                complete=condition["type"] == "Complete",
                at=_time(condition["lastTransitionTime"]),
                reason=condition.get("reason") or "",
                message=condition.get("message") or "",
            )
    return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
