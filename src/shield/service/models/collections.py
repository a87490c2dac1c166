"""Vector collections of a knowledge base: reindex, rebuild, check."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StrictBool, StringConstraints

from shield.service.models.base import Input, Model, Number, Whole

Question = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class ReindexRequest(Input):
    """Move a knowledge base to another embedding model."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    """The model's name, as `SHIELD_EMBEDDING_MODEL` or `SHIELD_SHADOW_MODEL` has it, or `all-minilm-l6-v2`."""
    dim: Whole = Field(ge=8, le=8192)
    """Length of its vectors."""
    flip: StrictBool = True
    """Use the new collection at once if it compares well; otherwise it waits for a flip."""
    questions: Annotated[list[Question], Field(max_length=100)] = Field(default_factory=list)
    """Golden questions to compare both collections on; without any, headings of stored documents are asked."""
    min_overlap: Number | None = Field(None, ge=0, le=1)
    """Least share of the ten best passages that both must name for it to flip by itself; unset = any."""


class RebuildRequest(Input):
    """Restore the vectors of a knowledge base from its stored texts."""

    fresh: StrictBool = False
    """Drop the live collection first, for an index whose files are broken; searches find nothing until it is filled."""


class CollectionView(Model):
    """One vector collection."""

    model: str
    dim: int
    state: Literal["shadow", "ready", "live", "retired", "failed"]
    missing: int = 0
    """Documents it may lack."""
    job_id: UUID | None = None
    """The job that filled it last."""
    report: dict[str, Any] = Field(default_factory=dict)
    """How it compared with the one before."""
    flipped_at: datetime | None = None
    """When it became live, or was retired."""
    keep_until: datetime | None = None
    """Until when a rollback to it is possible."""


class CollectionList(Model):
    """The collections of a knowledge base, the live one first."""

    knowledge_base: str
    collections: list[CollectionView]


class CollectionCheck(Model):
    """A collection against PostgreSQL, in points."""

    model: str
    dim: int
    state: Literal["shadow", "ready", "live", "retired", "failed"]
    expected: int
    present: int
    missing: int
    other: int
    """Points that no reader can meet; the sweeper removes them."""
    incomplete_documents: int


class KnowledgeBaseCheck(Model):
    """The index against PostgreSQL."""

    knowledge_base: str
    ok: bool
    """Whether the live collection has every point."""
    collections: list[CollectionCheck]
