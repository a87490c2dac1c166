"""The port of the vector index: one contract, run against every adapter (`tests/contract/test_vectors.py`).

Each call names its knowledge base; an adapter keeps bases apart (a shard each on Edge, a tenant filter on a Qdrant
server), and a point of another base is never seen. Scores of the fused search are reciprocal ranks with the k given, so
they are equal on every adapter. Payloads hold `document`, `revision`, `ordinal` and filter fields only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
FilterValue = str | int | float | bool


@dataclass(frozen=True)
class SparseVector:
    """Term weights: crc32 of the term -> BM25 term frequency part (k1 1.2, b 0.75); IDF is the index's."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Point:
    """A chunk's vectors and filter fields."""

    id: UUID
    document_id: UUID
    revision: int
    ordinal: int
    dense: Vector
    sparse: SparseVector
    fields: Mapping[str, FilterValue | list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Range:
    """Bounds of a number; None is open."""

    gte: float | None = None
    lte: float | None = None
    gt: float | None = None
    lt: float | None = None


@dataclass(frozen=True)
class VectorFilter:
    """All of it must hold; a tuple of values means any of them."""

    must: Mapping[str, FilterValue | tuple[FilterValue, ...] | Range] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredPoint:
    """A hit of the index."""

    id: UUID
    document_id: UUID
    revision: int
    ordinal: int
    score: float
    similarity: float | None = None
    """Cosine, where the dense search found the point."""


@dataclass(frozen=True)
class SpaceKey:
    """A collection: a knowledge base under one embedding model and dimension."""

    knowledge_base_id: UUID
    model: str
    dim: int


class VectorIndex(Protocol):
    """Where vectors live. Writes are durable when they return."""

    async def upsert(self, space: SpaceKey, points: Sequence[Point]) -> None:
        """Add or replace points; the space is made on first use."""

    async def search_dense(self, space: SpaceKey, vector: Vector, *, limit: int, where: VectorFilter | None = None) -> list[ScoredPoint]:
        """Nearest by cosine, best first; the score is the cosine."""

    async def search_hybrid(
        self,
        space: SpaceKey,
        vector: Vector,
        sparse: SparseVector,
        *,
        limit: int,
        prefetch: int,
        rrf_k: int,
        where: VectorFilter | None = None,
    ) -> list[ScoredPoint]:
        """Dense and sparse search fused by reciprocal rank; ties are broken by point id."""

    async def delete_document(self, space: SpaceKey, document_id: UUID, *, keep_revision: int | None = None) -> None:
        """Remove all points of a document, or all but one revision."""

    async def delete_revision(self, space: SpaceKey, document_id: UUID, revision: int) -> None:
        """Remove one revision's points."""

    async def delete_points(self, space: SpaceKey, ids: Sequence[UUID]) -> None:
        """Remove points by their ids; unknown ones are no error."""

    def scan(self, space: SpaceKey, *, document_id: UUID | None = None) -> AsyncIterator[tuple[UUID, Mapping[str, object]]]:
        """Every point's id and payload, in order of id; for proofs, hashes and rebuilds."""

    async def count(self, space: SpaceKey) -> int:
        """How many points a space holds; 0 if it was never made."""

    async def drop(self, space: SpaceKey) -> None:
        """Remove a space with all its points; no error if it was never made."""

    async def ping(self) -> None:
        """Raise `DependencyUnavailable` if the index does not answer."""

    async def close(self) -> None:
        """Flush and let go."""
