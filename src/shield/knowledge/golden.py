"""Comparing two collections of a base on golden questions.

The questions come with the request, or are headings of stored documents: the documents with the smallest ids (which are hashes, so it is a
sample, and always the same one), each with its first heading, else its title, else its first words. Two numbers say how the new collection
does: `overlap_at_10`, the share of the ten best passages that both name; and the found rate, of headings the share whose own document
is among the first ten, of given questions the share that counts as answered. The report holds numbers only: a question may quote a document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.relevance import searchable
from shield.knowledge.search import Searcher, SearchResult
from shield.knowledge.vectors.port import SpaceKey

DEPTH = 10
_WORDS = 12

_SAMPLE = text("""
    SELECT d.id, d.title, c.heading_path, c.text
    FROM documents d
    CROSS JOIN LATERAL (
        SELECT heading_path, text FROM chunks c WHERE c.document_id = d.id AND c.revision = d.live_revision
        ORDER BY cardinality(heading_path) = 0, ordinal LIMIT 1
    ) c
    WHERE d.knowledge_base_id = :kb AND d.live_revision IS NOT NULL
    ORDER BY d.id LIMIT :limit
""")


@dataclass(frozen=True)
class Question:
    """A question, and the document it was taken from, if it was."""

    text: str
    document_id: UUID | None = None


@dataclass(frozen=True)
class Comparison:
    """How the new collection answers beside the old one; shares between 0 and 1."""

    questions: int
    given: bool
    overlap: float
    found_old: float
    found_new: float
    overlaps: tuple[float, ...]

    def report(self) -> dict[str, Any]:
        """As it is stored and shown."""
        return {
            "questions": self.questions,
            "source": "given" if self.given else "headings",
            "overlap_at_10": round(self.overlap, 4),
            "found_rate": {"old": round(self.found_old, 4), "new": round(self.found_new, 4)},
            "overlap_by_question": [round(value, 2) for value in self.overlaps],
        }


class GoldenQuestions:
    """Asks both collections."""

    def __init__(self, engine: AsyncEngine, search: Searcher) -> None:
        self._engine = engine
        self._search = search

    async def take(self, kb: KnowledgeBase, limit: int) -> list[Question]:
        """Questions from what is stored."""
        with database_errors():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(_SAMPLE, {"kb": kb.id, "limit": limit})).all()
        taken = [
            Question((row.heading_path[-1] if row.heading_path else "") or row.title or " ".join(row.text.split()[:_WORDS]), row.id)
            for row in rows
        ]
        return [question for question in taken if searchable(question.text)]

    async def compare(
        self, kb: KnowledgeBase, old: SpaceKey, new: SpaceKey, questions: Sequence[Question], checkpoint: Callable[[], Awaitable[None]]
    ) -> Comparison:
        """Ask every question of both collections.

        Raises:
            QueryTooShort: a question has no word to search for.
            ShieldError: an embedder's, the index's or the database's failure.
        """
        sides = [replace(kb, embedding_model=space.model, embedding_dim=space.dim) for space in (old, new)]
        overlaps: list[float] = []
        found = [0, 0]
        for question in questions:
            await checkpoint()
            results = [await self._search.search(side, question.text, limit=DEPTH) for side in sides]
            passages = [{(hit.ref.document_id, hit.ref.ordinal) for hit in result.hits} for result in results]
            overlaps.append(len(passages[0] & passages[1]) / max(len(passages[0]), len(passages[1]), 1))
            for side, result in enumerate(results):
                found[side] += _found(question, result)
        count = max(len(questions), 1)
        return Comparison(
            questions=len(questions),
            given=any(question.document_id is None for question in questions),
            overlap=sum(overlaps) / count,
            found_old=found[0] / count,
            found_new=found[1] / count,
            overlaps=tuple(overlaps),
        )


def _found(question: Question, result: SearchResult) -> bool:
    if question.document_id is None:
        return result.found
    return any(hit.ref.document_id == question.document_id for hit in result.hits)
