"""From the domain to what callers see: jobs, outcomes, passages, documents. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from shield.errors import leaf_errors
from shield.jobs.model import WEBHOOK, DocumentOutcome, Job
from shield.knowledge.documents import Document
from shield.knowledge.model import Hit
from shield.service.models import ErrorView, JobView, OutcomeView, Passage, ProgressView, WebhookView

_AVERAGE_CHARACTERS_A_TOKEN = 4  # of English prose under the common tokenizers; bounds are approximate by nature


def job_view(
    job: Job,
    *,
    poll_after: float,
    outcomes: Sequence[DocumentOutcome] = (),
    outcomes_total: int = 0,
    proof: dict[str, Any] | None = None,
    webhook: WebhookView | None = None,
) -> JobView:
    """A job with some of its outcomes; `next_outcome` is set while there are more."""
    shown = [outcome_view(outcome) for outcome in outcomes]
    more = bool(shown) and outcomes_total > 0 and len(shown) < outcomes_total and shown[-1].number < outcomes_total
    return JobView(
        job_id=job.id,
        status=job.status.value,
        status_url=f"/jobs/{job.id}",
        poll_after_seconds=poll_after,
        knowledge_base=job.knowledge_base,
        kind=job.kind.value,
        stage=job.stage.value,
        outcome=job.outcome,
        priority=job.priority.value,
        progress=ProgressView(**asdict(job.progress)),
        error=error_view(job.error_code, job.error_message) if job.error_code else None,
        waiting_for=None if job.status.ended else job.waiting_for,
        retry_of=job.retry_of,
        cancel_requested=job.cancel_requested_at is not None,
        webhook=webhook or (WebhookView(url=job.spec[WEBHOOK]) if WEBHOOK in job.spec else None),
        tokens=job.tokens,
        budget_tokens=job.budget_tokens,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        outcomes=shown,
        outcomes_total=outcomes_total,
        next_outcome=shown[-1].number if more else None,
        proof=proof,
    )


def error_view(code: str, message: str | None) -> ErrorView:
    """A stored error in the form of its class; the stored message wins over the class's sentence."""
    leaf = leaf_errors().get(code)
    if leaf is None:
        return ErrorView(code=code, message=message or code, advice="", retryable=False)
    return ErrorView(code=code, message=message or leaf.sentence(), advice=leaf.advice, retryable=leaf.retryable)


def outcome_view(outcome: DocumentOutcome) -> OutcomeView:
    """One outcome; a failure carries its class's advice."""
    error = error_view(outcome.code, outcome.message) if outcome.code else None
    return OutcomeView(
        number=outcome.number,
        source=outcome.source,
        status=outcome.status.value,
        document_id=outcome.document_id,
        chunks=outcome.chunks,
        bytes=outcome.bytes,
        code=outcome.code,
        message=error.message if error else outcome.message,
        advice=error.advice if error else None,
    )


def passage(hit: Hit, text: str, *, truncated: bool) -> Passage:
    """A hit as data for an agent; `text` may be a cut of the hit's."""
    return Passage(
        text=text,
        source=hit.source,
        title=hit.title,
        document_id=hit.ref.document_id,
        chunk=hit.ref.ordinal,
        heading_path=list(hit.heading_path),
        page=hit.page,
        start=hit.start,
        end=hit.end,
        score=round(hit.score, 6),
        fetched_at=hit.fetched_at,
        kind=hit.kind,
        metadata=hit.metadata,
        flags=list(hit.flags),
        truncated=truncated,
    )


def passages_within(hits: Sequence[Hit], max_tokens: int) -> tuple[list[Passage], int]:
    """As many passages as fit into `max_tokens`, and how many hits they took.

    The first is cut rather than left out, so a caller always gets on; a later one that does not fit waits for the next page.
    """
    left = max_tokens * _AVERAGE_CHARACTERS_A_TOKEN
    taken: list[Passage] = []
    for hit in hits:
        if len(hit.text) > left:
            if not taken:
                taken.append(passage(hit, hit.text[:left], truncated=True))
            break
        taken.append(passage(hit, hit.text, truncated=False))
        left -= len(hit.text)
    return taken, len(taken)


def document_view(document: Document, knowledge_base: str) -> dict[str, Any]:
    """The fields of a document's view."""
    return {
        "document_id": document.id,
        "source": document.source,
        "kind": document.kind,
        "title": document.title,
        "mime": document.mime,
        "revision": document.revision,
        "chunks": document.chunks,
        "bytes": document.bytes,
        "pages": document.pages,
        "metadata": document.metadata,
        "fetched_at": document.fetched_at,
        "updated_at": document.updated_at,
        "knowledge_base": knowledge_base,
    }


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Length of a span, or None while it is open."""
    return (end - start).total_seconds() if start and end else None
