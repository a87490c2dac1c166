"""Views and objects, with only what a test is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from shield_operator.cluster import Obj
from shield_operator.ingestjobs.view import Child, Finish, Subject, View, subject_of
from shield_operator.orchestrator import Row

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
UID = "6f1c1a52-0000-4000-8000-000000000001"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def an_ingestjob(*, status: Obj | None = None, labels: dict[str, str] | None = None, meta: Obj | None = None, **spec: Any) -> Obj:
    """An IngestJob `crawl` in the namespace `team`, 20 seconds old."""
    return {
        "apiVersion": "shield.hx-citadel.io/v1alpha1",
        "kind": "IngestJob",
        "metadata": {
            "name": "crawl", "namespace": "team", "uid": UID, "resourceVersion": "7", "generation": 1,
            "creationTimestamp": text(ago(20)), **({"labels": labels} if labels else {}), **(meta or {}),
        },
        "spec": {"source": {"web": {"url": "https://docs.example.com/"}}, "knowledgeBase": "docs", **spec},
        **({"status": status} if status else {}),
    }  # fmt: skip


def a_subject(**parts: Any) -> Subject:
    return subject_of(an_ingestjob(**parts))


def a_view(subject: Subject | None = None, **parts: Any) -> View:
    return View(subject or a_subject(), **parts)


def a_child(number: int = 1, **parts: Any) -> Child:
    """A Job that was made 15 seconds ago and began at once."""
    return Child(
        **{
            "name": f"crawl-{number}",
            "uid": f"job-{number}",
            "number": number,
            "created": ago(15),
            "started": ago(15),
            "deadline": 3600,
            **parts,
        }
    )


def finished(*, complete: bool = False, reason: str = "", message: str = "", seconds_ago: float = 1) -> Finish:
    return Finish(complete=complete, at=ago(seconds_ago), reason=reason, message=message)


def a_row(status: str = "processing", **parts: Any) -> Row:
    return Row.model_validate({"uid": UID, "job_id": "3a0c", "status": status, "stage": "fetching", "updated_at": text(ago(3)), **parts})
