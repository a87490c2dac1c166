"""Reciprocal rank fusion on our side, so that order and score are the same whatever the index.

score = sum over the searches of 1 / (k + rank), rank from 1 (Cormack, Clarke and Büttcher 2009). Indexes add up floats in
different orders and return equal scores in any order, so each search is ranked again: by its score rounded to five decimals,
then by point id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from shield.knowledge.vectors.port import ScoredPoint


def ranked(points: Sequence[ScoredPoint]) -> list[ScoredPoint]:
    """Best first; equal scores by id."""
    return sorted(points, key=lambda point: (-round(point.score, 5), point.id))


def fuse(dense: Sequence[ScoredPoint], sparse: Sequence[ScoredPoint], *, k: int, limit: int) -> list[ScoredPoint]:
    """The points of both searches, best first; those of the dense one keep their cosine as `similarity`."""
    scores: defaultdict[UUID, float] = defaultdict(float)
    for search in (dense, sparse):
        for rank, point in enumerate(ranked(search), start=1):
            scores[point.id] += 1 / (k + rank)
    points = {point.id: point for point in (*sparse, *dense)}
    fused = (replace(points[key], score=score) for key, score in scores.items())
    return sorted(fused, key=lambda point: (-point.score, point.id))[:limit]
