"""Searching: ranks from the vector index, text and truth from PostgreSQL.

The index only proposes. One statement loads the proposed chunks joined on `documents.live_revision`; what is not live is
dropped, so garbage and stale writers are never seen. A search that raced with an update (it met only the old revision's points, and
the new one went live before the text was read) looks again, so a document being updated is never missing.

The order of all hits is fixed for a query: the fused hits of the first `prefetch`, then those that ten times and a hundred times as deep a search
adds, whatever page is asked for; so pages neither overlap nor leave gaps while nothing changes.

`found` says whether what is stored speaks to the question: it is near in meaning (cosine of `query.sure`), or fairly near (`query.floor`) and
shares a word, or its words themselves are there (`lexically_found`), because a rare exact term such as `E4711` says little to a model of
meaning. `tests/integration/knowledge/test_search.py` calibrates it on questions that are answered and questions that are not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.errors import QueryTooShort
from shield.knowledge.bases import embedder_of, space_of
from shield.knowledge.bm25 import query_vector
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.model import ChunkRef, Hit, KnowledgeBase
from shield.knowledge.relevance import lexically_found, searchable, shares_a_word
from shield.knowledge.vectors.port import ScoredPoint, SparseVector, Vector, VectorFilter, VectorIndex
from shield.settings import LibrarySettings, QuerySettings

_TIERS = (1, 10, 100)
_TRIES = 3
_LEXICAL_HITS = 10

_COLUMNS = """
    d.id AS document_id, c.revision, c.ordinal, c.text, c.heading_path, c.page, c.start, c."end", c.tokens, c.flags,
    d.source, d.title, d.kind, d.fetched_at, d.metadata
"""

_LIVE = sql(f"""
    SELECT w.n, {_COLUMNS}, d.updated_at > clock_timestamp() - CAST(:recent AS interval) AS recent
    FROM unnest(CAST(:documents AS uuid[]), CAST(:revisions AS bigint[]), CAST(:ordinals AS int[]))
         WITH ORDINALITY AS w(document_id, revision, ordinal, n)
    JOIN documents d ON d.id = w.document_id AND d.knowledge_base_id = :kb AND d.live_revision IS NOT NULL
    LEFT JOIN chunks c ON c.document_id = w.document_id AND c.revision = w.revision AND c.ordinal = w.ordinal AND c.revision = d.live_revision
    ORDER BY w.n
""")  # noqa: S608  constants only

_BY_GRAPH_KEY = sql(f"""
    SELECT DISTINCT ON (r.graph_key, c.ordinal) r.graph_key, {_COLUMNS},
           count(*) OVER (PARTITION BY r.graph_key, c.ordinal) AS documents
    FROM (SELECT DISTINCT * FROM unnest(CAST(:keys AS text[]), CAST(:ordinals AS int[])) AS u(graph_key, ordinal)) w
    JOIN document_revisions r ON r.graph_key = w.graph_key
    JOIN documents d ON d.id = r.document_id AND d.live_revision = r.revision AND d.knowledge_base_id = :kb
    JOIN chunks c ON c.document_id = r.document_id AND c.revision = r.revision AND c.ordinal = w.ordinal
    ORDER BY r.graph_key, c.ordinal, d.source COLLATE "C"
""")  # noqa: S608  constants only

_SPANS = sql("""
    SELECT w.n, substr(r.text, c.start + 1, c."end" - c.start) AS span
    FROM unnest(CAST(:documents AS uuid[]), CAST(:revisions AS bigint[]), CAST(:ordinals AS int[]))
         WITH ORDINALITY AS w(document_id, revision, ordinal, n)
    JOIN chunks c ON c.document_id = w.document_id AND c.revision = w.revision AND c.ordinal = w.ordinal
    JOIN document_revisions r ON r.document_id = c.document_id AND r.revision = c.revision
""")


@dataclass(frozen=True)
class SearchResult:
    """Hits, best first, of the page asked for."""

    hits: list[Hit]
    best_similarity: float
    """Highest cosine of a live chunk to the query, -1 if there is none; of the whole result, not of this page."""
    found: bool
    """Whether what is stored speaks to the query."""
    more: bool
    """Whether there are hits behind this page."""


@dataclass(frozen=True)
class SharedHit:
    """A chunk the graph named, shown as that of the first source that holds it."""

    hit: Hit
    documents: int
    """How many live documents share the text."""


@dataclass(frozen=True)
class _Question:
    kb: KnowledgeBase
    dense: Vector
    sparse: SparseVector
    where: VectorFilter | None


@dataclass(frozen=True)
class _Tier:
    hits: list[Hit]
    exhausted: bool
    """The index holds no more than this."""


class Searcher:
    """Finds live chunks, in the collection that the base names at that moment."""

    def __init__(
        self, engine: AsyncEngine, vectors: VectorIndex, embedders: CachedEmbedder, settings: QuerySettings, library: LibrarySettings
    ) -> None:
        self._engine = engine
        self._vectors = vectors
        self._embedders = embedders
        self._settings = settings
        self._race_window = library.race_window

    async def search(
        self, kb: KnowledgeBase, query: str, *, limit: int, offset: int = 0, where: VectorFilter | None = None
    ) -> SearchResult:
        """The live chunks that answer `query`, `limit` of them from `offset` on.

        Raises:
            QueryTooShort: the query has no word to search for.
            DependencyMisconfigured: no embedder is configured for the base's model.
            ShieldError: the embedder's, the index's or the database's failure.
        """
        embedder = embedder_of(kb, self._embedders)
        if not searchable(query):
            raise QueryTooShort
        question = _Question(kb, await embedder.embed_query(query), query_vector(query), where)
        wanted = offset + limit + 1
        first = await self._first_tier(question)
        hits = first.hits if len(first.hits) >= wanted or first.exhausted else await self._deeper(question, first.hits, wanted)
        best = max((hit.similarity for hit in first.hits if hit.similarity is not None), default=-1.0)
        found = bool(first.hits) and self._speaks_to(query, best, [_readable(hit) for hit in first.hits[:_LEXICAL_HITS]])
        return SearchResult(hits[offset : offset + limit], best, found, more=len(hits) >= wanted)

    async def load_chunks(self, kb: KnowledgeBase, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], SharedHit]:
        """Live chunks by (graph key, ordinal); what is not live any more is left out."""
        if not wanted:
            return {}
        parameters = {"kb": kb.id, "keys": [key for key, _ in wanted], "ordinals": [ordinal for _, ordinal in wanted]}
        with database_errors():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(_BY_GRAPH_KEY, parameters)).all()
        return {(row.graph_key, row.ordinal): SharedHit(_hit(row, 0.0, None), row.documents) for row in rows}

    async def load_spans(self, refs: Sequence[ChunkRef]) -> dict[ChunkRef, str]:
        """The canonical text behind each chunk's offsets, which for tables is not the chunk's own text."""
        if not refs:
            return {}
        with database_errors():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(_SPANS, _references(refs))).all()
        return {refs[row.n - 1]: row.span for row in rows}

    def _speaks_to(self, query: str, best: float, texts: Sequence[str]) -> bool:
        if best >= self._settings.sure or lexically_found(query, texts):
            return True
        return best >= self._settings.floor and shares_a_word(query, texts)

    async def _first_tier(self, question: _Question) -> _Tier:
        """The fused best hits, looked for again while a document going live in between hides itself."""
        for _ in range(_TRIES):
            points = await self._hybrid(question, 1)
            near = await self._vectors.search_dense(
                space_of(question.kb), question.dense, limit=self._settings.prefetch, where=question.where
            )
            hits, raced = await self._load(question.kb, points, {point.id: point.score for point in near})
            if not raced:
                break
        return _Tier(hits, exhausted=len(points) < self._settings.prefetch)

    async def _deeper(self, question: _Question, hits: list[Hit], wanted: int) -> list[Hit]:
        """The hits, and behind them what deeper searches add, until there are `wanted` or no more."""
        for tier in _TIERS[1:]:
            points = await self._hybrid(question, tier)
            known = {hit.ref for hit in hits}
            more, _ = await self._load(question.kb, [point for point in points if _ref(point) not in known], {})
            hits = hits + more
            if len(hits) >= wanted or len(points) < self._settings.prefetch * tier:
                break
        return hits

    async def _hybrid(self, question: _Question, tier: int) -> list[ScoredPoint]:
        prefetch = self._settings.prefetch * tier
        return await self._vectors.search_hybrid(
            space_of(question.kb),
            question.dense,
            question.sparse,
            limit=2 * prefetch,
            prefetch=prefetch,
            rrf_k=self._settings.rrf_k,
            where=question.where,
        )

    async def _load(self, kb: KnowledgeBase, points: Sequence[ScoredPoint], similarity: dict[UUID, float]) -> tuple[list[Hit], bool]:
        """The live ones with their text, and whether a document was missed because it went live in between."""
        if not points:
            return [], False
        parameters = {"kb": kb.id, "recent": self._race_window, **_references([_ref(point) for point in points])}
        with database_errors():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(_LIVE, parameters)).all()
        hits = [_hit(row, points[row.n - 1].score, similarity.get(points[row.n - 1].id)) for row in rows if row.revision is not None]
        seen = {hit.ref.document_id for hit in hits}
        return hits, _raced(rows, seen)


def _readable(hit: Hit) -> str:
    return "\n".join((hit.title, *hit.heading_path, hit.text))


def _raced(rows: Sequence[Any], seen: Collection[UUID]) -> bool:
    return any(row.revision is None and row.recent and row.document_id not in seen for row in rows)


def _ref(point: ScoredPoint) -> ChunkRef:
    return ChunkRef(point.document_id, point.revision, point.ordinal)


def _references(refs: Sequence[ChunkRef]) -> dict[str, list[Any]]:
    return {
        "documents": [ref.document_id for ref in refs],
        "revisions": [ref.revision for ref in refs],
        "ordinals": [ref.ordinal for ref in refs],
    }


def _hit(row: Any, score: float, similarity: float | None) -> Hit:
    return Hit(
        ref=ChunkRef(row.document_id, row.revision, row.ordinal),
        score=score,
        similarity=similarity,
        text=row.text,
        source=row.source,
        title=row.title,
        kind=row.kind,
        heading_path=tuple(row.heading_path),
        page=row.page,
        start=row.start,
        end=row.end,
        tokens=row.tokens,
        fetched_at=row.fetched_at,
        metadata=row.metadata,
        flags=tuple(row.flags),
    )
