"""What is there: documents, knowledge bases, and how the server does."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StrictBool, StringConstraints

from shield.service.models.base import Input, KbName, Model


class DocumentView(Model):
    """A document in a listing."""

    document_id: UUID
    source: str
    kind: str
    title: str
    mime: str
    revision: int
    chunks: int
    bytes: int
    pages: int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    fetched_at: datetime | None = None
    updated_at: datetime
    knowledge_base: str


class DocumentList(Model):
    """In order of source."""

    documents: list[DocumentView]
    total: int
    next_cursor: str | None = None


class DocumentText(DocumentView):
    """A document with (a part of) its text."""

    text: str
    offset: int = 0
    next_offset: int | None = None
    trust: Literal["untrusted"] = "untrusted"
    flags: list[str] = Field(default_factory=list)


class KnowledgeBaseView(Model):
    """A knowledge base with its numbers."""

    id: UUID
    name: str
    description: str
    graph: bool
    embedding_model: str
    embedding_dim: int
    documents: int
    chunks: int
    graph_pending: int = 0
    """Graph steps still waiting."""
    created_at: datetime


class KnowledgeBaseCreate(Input):
    """Make a knowledge base."""

    name: KbName
    description: Annotated[str, StringConstraints(max_length=2000)] = ""
    graph: StrictBool = True


class KnowledgeBaseList(Model):
    """In order of name."""

    knowledge_bases: list[KnowledgeBaseView]


class KnowledgeBaseHash(Model):
    """A fingerprint of all that readers can see; equal content gives equal hashes on any machine."""

    knowledge_base: str
    hash: str
    documents: int
    chunks: int
    entities: int
    relations: int


class DependencyHealth(Model):
    """One dependency."""

    name: str
    status: Literal["ok", "degraded", "down", "off"]
    detail: str = ""


class Health(Model):
    """`/readyz`: 200 unless something that everything needs is down."""

    status: Literal["ok", "degraded", "down"]
    version: str
    dependencies: list[DependencyHealth]
