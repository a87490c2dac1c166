"""The domain of knowledge: bases, documents, chunks and hits, and the ids that make them stable.

A document is (knowledge base, source URI). It has revisions, and readers see the live one only. Ids are UUIDv5, so the same
source is the same document and a stale worker's points carry a revision that is never live.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

NAMESPACE = UUID("6f0b7c9e-4f0e-5d39-9d0b-0c9a4d3f5a11")
"""Namespace of all derived ids; fixed for ever."""


def document_id(knowledge_base_id: UUID, source: str) -> UUID:
    """The id of a source in a knowledge base."""
    return uuid5(NAMESPACE, f"{knowledge_base_id}\n{source}")


def point_id(knowledge_base_id: UUID, document: UUID, revision: int, ordinal: int) -> UUID:
    """The id of a chunk's vector."""
    return uuid5(NAMESPACE, f"{knowledge_base_id}\n{document}\n{revision}\n{ordinal}")


@dataclass(frozen=True)
class KnowledgeBase:
    """A closed collection of documents with one embedding model and, unless it says no, a graph."""

    id: UUID
    name: str
    description: str
    graph: bool
    embedding_model: str
    embedding_dim: int
    owner: str
    created_at: datetime
    founding_model: str = ""
    """The model it was made with, where a reindex has changed `embedding_model` since; see `founded_on`."""
    founding_dim: int = 0

    @property
    def founded_on(self) -> tuple[str, int]:
        """The model its documents are cut and hashed for, all its life: a reindex changes vectors, not documents."""
        return (self.founding_model, self.founding_dim) if self.founding_model else (self.embedding_model, self.embedding_dim)


@dataclass(frozen=True)
class Chunk:
    """A piece of a document's canonical text, `[start, end)`, with where it stands."""

    ordinal: int
    text: str
    start: int
    end: int
    tokens: int
    heading_path: tuple[str, ...] = ()
    page: int | None = None

    @property
    def embedded_text(self) -> str:
        """What the model and the keyword index see: the heading path, then the text."""
        return f"{' > '.join(self.heading_path)}\n{self.text}" if self.heading_path else self.text

    @property
    def embed_hash(self) -> str:
        """Key of the embedding cache."""
        return hashlib.sha256(self.embedded_text.encode()).hexdigest()


@dataclass(frozen=True)
class ChunkRef:
    """Which chunk: what a vector search returns, before text is read from PostgreSQL."""

    document_id: UUID
    revision: int
    ordinal: int


@dataclass(frozen=True)
class Hit:
    """A live chunk that answers a query, with its provenance."""

    ref: ChunkRef
    score: float
    """Fused rank score; comparable within one result only."""
    similarity: float | None
    """Cosine of the dense vector, where the dense search found it."""
    text: str
    source: str
    title: str
    kind: str
    heading_path: tuple[str, ...]
    page: int | None
    start: int
    end: int
    tokens: int
    fetched_at: datetime | None
    metadata: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """What became of one document handed to the library."""

    document_id: UUID
    revision: int
    changed: bool
    chunks: int
    graph_task: int | None = None
