"""The domain of jobs: states, what a claim is, what progress and outcomes hold.

`pending -> processing -> completed | failed | cancelled`; an end state never changes (the database refuses). A claim
carries a *fence*, a number that only grows: whoever holds an older one has lost the job and may write nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType
from uuid import UUID

JobId = NewType("JobId", UUID)
WorkerId = NewType("WorkerId", str)

FLEET = "fleet"
DOCUMENTS = "documents"
"""The type of a spec that names many documents, and what a worker offers that can run one: earlier releases cannot."""
WEBHOOK = "webhook"
"""Where a spec names the address that is told of the job's end."""


class JobKind(StrEnum):
    """What a job does."""

    CRAWL = "crawl"
    INGEST = "ingest"
    DELETE = "delete"
    REINDEX = "reindex"
    REBUILD = "rebuild"


class Status(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether this is an end state."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class Priority(StrEnum):
    """Which of the three queues."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Stage(StrEnum):
    """What a running job is doing; `queued` and `graph` may also wait."""

    QUEUED = "queued"
    ACQUIRE = "acquire"
    CONVERT = "convert"
    INDEX = "index"
    GRAPH = "graph"
    DELETE = "delete"
    DONE = "done"


class OutcomeStatus(StrEnum):
    """What became of one page or document."""

    STORED = "stored"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    SKIPPED = "skipped"
    DELETED = "deleted"


@dataclass(frozen=True)
class Progress:
    """True, bounded numbers; `percentage` reaches 100 only when the job has ended well."""

    pages_found: int = 0
    pages_fetched: int = 0
    documents: int = 0
    chunks: int = 0
    failed: int = 0
    bytes: int = 0
    percentage: float = 0.0


@dataclass(frozen=True)
class DocumentOutcome:
    """What became of one page or document of a job, in order of discovery (`number` from 1)."""

    number: int
    source: str
    status: OutcomeStatus
    counted: bool = False
    document_id: UUID | None = None
    revision: int | None = None
    chunks: int = 0
    bytes: int = 0
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class JobRequest:
    """What intake hands to the repository; everything in it is already validated."""

    kind: JobKind
    principal: str
    knowledge_base_id: UUID
    knowledge_base: str
    spec: dict[str, Any]
    request_hash: str
    payload: bytes | None = None
    payload_bytes: int = 0
    idempotency_key: str | None = None
    runner: str = FLEET
    needs: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL
    retry_of: JobId | None = None
    traceparent: str | None = None
    upload_id: UUID | None = None
    budget_tokens: int | None = None
    """Most tokens of language models that the job may spend."""
    share_live: bool = True
    """An identical live request of the same principal gets the same job instead of a new one."""


@dataclass(frozen=True)
class Job:
    """A job's row, without its payload."""

    id: JobId
    seq: int
    kind: JobKind
    status: Status
    stage: Stage
    principal: str
    runner: str
    needs: tuple[str, ...]
    priority: Priority
    knowledge_base_id: UUID
    knowledge_base: str
    spec: dict[str, Any]
    fence: int
    progress: Progress
    errors: int
    crashes: int
    parked: bool
    created_at: datetime
    updated_at: datetime
    deadline_at: datetime
    available_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    lease_until: datetime | None = None
    cancel_requested_at: datetime | None = None
    outcome: str | None = None
    retry_of: JobId | None = None
    error_code: str | None = None
    error_message: str | None = None
    waiting_for: str | None = None
    traceparent: str | None = None
    request_hash: str = ""
    budget_tokens: int | None = None
    tokens: int = 0
    """Tokens of language models spent so far."""


@dataclass(frozen=True)
class Claim:
    """The right to run a job until the lease ends; `fence` goes with every write."""

    job: Job
    fence: int
    worker: WorkerId
    resumed: bool = False
    """Someone worked on it before: look at what is already done."""
    lapsed: bool = False
    """It was taken over from a worker whose lease had run out."""


@dataclass(frozen=True)
class Beat:
    """What a heartbeat learned; `ok` False means that the claim is outdated."""

    ok: bool
    cancel_requested: bool = False
    deadline_passed: bool = False


@dataclass(frozen=True)
class Swept:
    """What a sweep did."""

    expired: int = 0
    exhausted: int = 0
    cancelled: int = 0
    unparked: int = 0
    removed: int = 0
    lapsed: int = 0
    """How many of those ended were running under a lease that had run out."""
    ended: tuple[Job, ...] = field(default=(), compare=False, repr=False)
    """The jobs that were ended, for the metrics."""


@dataclass(frozen=True)
class QueueStats:
    """A runner's queue at a glance. Ages are in seconds and 0 where nothing waits."""

    pending: int = 0
    processing: int = 0
    parked: int = 0
    oldest: Mapping[Priority, float] = field(default_factory=lambda: dict.fromkeys(Priority, 0.0))
    """How long the longest-waiting due job has been due, by priority."""
    unpublished: float = 0.0
    """The same of those without a hint."""
    graph_waiting: int = 0
    """Graph steps that are not through."""
    graph_oldest: float = 0.0
    """The age of the oldest of them."""
    workers: Mapping[frozenset[str], int] = field(default_factory=dict)
    """Live workers by what they offer."""
    slots: int = 0
    """How many jobs they run at once."""

    @property
    def oldest_pending(self) -> float:
        """How long the longest-waiting due job of any priority has been due."""
        return max(self.oldest.values())


@dataclass(frozen=True)
class Page:
    """One page of a listing; `next` is None at the end."""

    jobs: list[Job] = field(default_factory=list)
    next: int | None = None
