"""What the operator of a cluster asks an orchestrator: the rows of its IngestJobs, many at once, and the bases of its namespaces."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StrictBool, StringConstraints

from shield.service.models.base import Input, Model, Whole
from shield.service.models.collections import CollectionView
from shield.service.models.jobs import ProgressView

MOST = 1000
"""Most IngestJobs of one request."""
MOST_NAMESPACES = 100
"""Most namespaces of one request."""
Uid = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


def namespace_principal(namespace: str) -> str:
    """Who a namespace of a cluster is here."""
    return f"k8s:{namespace}"


class IngestJobUids(Input):
    """The IngestJobs that are meant."""

    uids: Annotated[list[Uid], Field(max_length=MOST)]
    """`metadata.uid` of each."""


class IngestJobView(Model):
    """The row of one IngestJob."""

    uid: str
    job_id: UUID
    status: Literal["pending", "processing", "completed", "failed", "cancelled"]
    outcome: Literal["complete", "partial"] | None = None
    error_code: str | None = None
    """Why it failed; of one that goes on, the last error that a retry may mend."""
    stage: str
    progress: ProgressView
    attempts: int
    """How many runs it took: 0 before the first, then one more for each error and each crash; a run that handed it back counts as none."""
    updated_at: datetime


class IngestJobList(Model):
    """Those that have a row; a uid without one is left out: its pod has not asked for it yet, or the row is past its retention."""

    jobs: list[IngestJobView]


class IngestJobsCancelled(Model):
    """What a cancel met."""

    cancelled: int
    """How many had not ended: they are cancelled now, or will be within a heartbeat of their pod."""


class ActiveIngestJobs(Model):
    """IngestJobs whose rows have not ended, in order."""

    uids: list[str]
    next: str | None = None
    """Pass as `after` to read on; None at the end."""
    namespaces: list[str] | None = None
    """The namespaces that were asked for; None: all. A caller that asked for some and does not read them here was given others', too."""


class NamespaceBase(Input):
    """The knowledge base that a namespace asks for."""

    description: Annotated[str, StringConstraints(max_length=2000)] = ""
    graph: StrictBool = True
    """Whether it keeps a graph; of one that exists this never changes."""
    embedding_model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """The model of a new base without a graph. One with a graph begins with the installation's, and one that exists keeps what it has: a
    reindex moves both. Default: the installation's."""
    embedding_dim: Annotated[Whole, Field(ge=8, le=8192)] | None = None
    """Length of its vectors; given exactly if the model is."""


class EmbeddingView(Model):
    """An embedding model."""

    model: str
    dim: int


class ReindexView(Model):
    """A move to another model."""

    embedding: EmbeddingView
    """Where to."""
    state: Literal["running", "ready", "failed"]
    """`ready`: complete, and waits for a flip."""
    job_id: UUID | None = None
    """The job that does it."""


class NamespaceBaseView(Model):
    """The knowledge base of a namespace, with its numbers."""

    id: UUID
    name: str
    owner: str
    description: str
    graph: bool
    documents: int
    chunks: int
    graph_pending: int = 0
    """Graph steps still waiting."""
    embedding: EmbeddingView
    """The model that answers now."""
    collections: list[CollectionView]
    """The live one first."""
    reindex: ReindexView | None = None
    """The move to another model that is under way, is ready, or failed last; None: there is none."""
    created_at: datetime
