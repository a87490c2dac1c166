"""Jobs as their owners see them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from shield.service.models.base import Model


class ProgressView(Model):
    """True numbers so far."""

    pages_found: int = 0
    pages_fetched: int = 0
    documents: int = 0
    chunks: int = 0
    failed: int = 0
    bytes: int = 0
    percentage: float = 0.0


class OutcomeView(Model):
    """What became of one page or document."""

    number: int
    source: str
    status: Literal["stored", "unchanged", "failed", "skipped", "deleted"]
    document_id: UUID | None = None
    chunks: int = 0
    bytes: int = 0
    code: str | None = None
    message: str | None = None
    advice: str | None = None


class ErrorView(Model):
    """An error as every surface shows it."""

    code: str
    message: str
    advice: str
    retryable: bool


class JobAccepted(Model):
    """The 202 answer, and what long tools return at once."""

    job_id: UUID
    status: Literal["pending", "processing", "completed", "failed", "cancelled"]
    status_url: str
    poll_after_seconds: float
    knowledge_base: str


class WebhookView(Model):
    """A completion webhook; `pending` until it was delivered or given up."""

    url: str
    status: Literal["pending", "delivered", "failed"] = "pending"
    attempts: int = 0
    code: str | None = None
    """Why the last attempt failed."""


class JobView(JobAccepted):
    """A job as its owner sees it."""

    kind: Literal["crawl", "ingest", "delete", "reindex", "rebuild"]
    stage: str
    outcome: Literal["complete", "partial"] | None = None
    priority: str
    progress: ProgressView
    error: ErrorView | None = None
    waiting_for: str | None = None
    retry_of: UUID | None = None
    cancel_requested: bool = False
    webhook: WebhookView | None = None
    """Who is told of the end, and whether that worked."""
    tokens: int = 0
    """Tokens of language models spent so far, its graph steps included."""
    budget_tokens: int | None = None
    """Most tokens it may spend; None: no limit."""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcomes: list[OutcomeView] = Field(default_factory=list)
    """The first of them, in order of discovery (get_job_status pages through the rest)."""
    outcomes_total: int = 0
    next_outcome: int | None = None
    """Pass as `outcomes_after` to read on; None at the end."""
    proof: dict[str, Any] | None = None
    """Of a deletion: what was searched for, and what was found."""


class JobList(Model):
    """Newest first."""

    jobs: list[JobView]
    next_cursor: str | None = None
