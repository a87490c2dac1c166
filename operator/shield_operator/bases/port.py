"""What the controller of KnowledgeBases needs of the orchestrator, and in which words it answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel, ConfigDict

CONFLICT = "kb.conflict"
DELETING = "kb.deleting"
NOT_FOUND = "kb.not_found"
NOT_CONFIGURED = "dependency.misconfigured"
TRACES_LEFT = "document.traces_left"


class Answer(BaseModel):
    """Base of all answers: fields of a newer orchestrator are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Space(Answer):
    """An embedding model and the length of its vectors."""

    model: str
    dim: int

    def __str__(self) -> str:
        return f"{self.model} ({self.dim})"


class CollectionView(Answer):
    """One of a base's vector collections."""

    model: str
    dim: int
    state: str
    missing: int = 0
    flipped_at: datetime | None = None

    @property
    def space(self) -> Space:
        """What its vectors are."""
        return Space(model=self.model, dim=self.dim)


class ReindexView(Answer):
    """A move to another model that is not over."""

    embedding: Space
    state: str
    job_id: str | None = None


class BaseView(Answer):
    """A knowledge base of the orchestrator."""

    name: str
    graph: bool
    documents: int
    chunks: int
    embedding: Space
    collections: tuple[CollectionView, ...] = ()
    reindex: ReindexView | None = None

    def kept(self) -> Space | None:
        """What a rollback would return to: the complete collection that was left last."""
        retired = [item for item in self.collections if item.state == "retired"]
        last = max(retired, key=lambda item: (item.flipped_at is not None, item.flipped_at), default=None)
        return last.space if last is not None and last.missing == 0 else None


class JobError(Answer):
    """Why a job failed."""

    code: str = ""
    message: str = ""


class DeletionProof(Answer):
    """What a deletion searched for and found afterwards."""

    hits: int = 0
    """Traces that are left."""


class KbJob(Answer):
    """A job of the orchestrator about a whole base."""

    job_id: str
    kind: str
    status: str
    error: JobError | None = None
    created_at: datetime
    finished_at: datetime | None = None
    proof: DeletionProof | None = None
    """Of a deletion that has ended; lists leave it out."""

    @property
    def ended(self) -> bool:
        """It will never change again."""
        return self.status in {"completed", "failed", "cancelled"}

    @property
    def code(self) -> str:
        """The code of its error, or how it ended."""
        return self.error.code if self.error is not None and self.error.code else self.status


class Bases(Protocol):
    """Knowledge bases of the orchestrator. Every call is safe to repeat, and raises `OrchestratorError`."""

    async def ensure(self, namespace: str, name: str, *, description: str, graph: bool, embedding: Space | None) -> BaseView:
        """The base, made if it is missing; `kb.conflict` if it is not this namespace's."""

    async def exists(self, name: str) -> bool:
        """Whether readers may still meet it: False once its deletion began, too."""

    async def reindex(self, name: str, embedding: Space) -> KbJob:
        """Move it to another model, as a job that compares and flips."""

    async def rollback(self, name: str) -> None:
        """Search the collection again that was left last."""

    async def delete(self, name: str) -> KbJob:
        """Delete it with all that is in it, as a job."""

    async def retry(self, job_id: str) -> KbJob:
        """A new job that goes on where a failed one ended."""

    async def job(self, job_id: str) -> KbJob | None:
        """A job; None if it is not known (any more)."""

    async def deletions(self, name: str) -> Sequence[KbJob]:
        """The latest jobs that deleted something of a base of that name, newest first."""
