"""Reading: search, notes, documents, and answers with citations.

A question is answered from two sides: the hybrid search over passages and, in the graph modes, what the graph names. Both
rankings are fused by reciprocal rank. The graph may be away or late without failing the question: the answer then rests on
the passages and says `degraded: graph_unavailable`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import structlog

from shield.auth import Principal, Scope
from shield.errors import CircuitOpen, KnowledgeBaseHasNoGraph, QueryTimeout, ShieldError
from shield.knowledge.answer import Composed, Composer
from shield.knowledge.filters import vector_filter
from shield.knowledge.graph.model import GraphAnswer
from shield.knowledge.model import ChunkRef, Hit, KnowledgeBase
from shield.knowledge.notes import note
from shield.knowledge.search import SearchResult
from shield.service.audit import record_query
from shield.service.intake import IntakeCases
from shield.service.models import (
    Answer,
    Citation,
    DocumentList,
    DocumentText,
    DocumentView,
    EntityView,
    FilterInput,
    FindRequest,
    FindResult,
    QueryRequest,
    RangeFilter,
    RelationView,
    StoreRequest,
    StoreResult,
)
from shield.service.parts import Parts
from shield.service.routing import Router
from shield.service.views import document_view, passages_within

log = structlog.get_logger(__name__)

_CHARACTERS_A_TOKEN = 4


class ReadCases(IntakeCases):
    """What a principal does with knowledge."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._router = Router(parts.embedder)

    async def find(self, who: Principal, request: FindRequest) -> FindResult:
        """Passages for a query, page by page."""
        async with self._limit():
            return await self._find(who, request)

    async def _find(self, who: Principal, request: FindRequest) -> FindResult:
        who.require(Scope.KB_READ)
        base = await self._base(who, request.knowledge_base)
        await record_query(self.parts, who.name, "find", base.name, request.query)
        filters = _plain(request.filters)
        collection = f"{base.id}:{base.embedding_model}:{base.embedding_dim}"  # pages of two models would not fit together
        binding = (who.name, "find", collection, request.query, json.dumps(filters, sort_keys=True))
        offset = self.parts.cursors.read_number(request.cursor, *binding)
        result = await self.parts.search.search(base, request.query, limit=request.limit, offset=offset, where=vector_filter(filters))
        if not result.found:
            return FindResult(found=False, results=[], knowledge_base=base.name)
        passages, taken = passages_within(result.hits, request.max_tokens)
        more = result.more or taken < len(result.hits)
        cursor = self.parts.cursors.make(offset + taken, *binding) if more and taken else None
        return FindResult(found=True, results=passages, next_cursor=cursor, knowledge_base=base.name)

    async def store(self, who: Principal, request: StoreRequest) -> StoreResult:
        """Store a note: a document in PostgreSQL first, then its vectors; durable and searchable when this returns."""
        who.require(Scope.KB_WRITE)
        base = await self._base(who, request.knowledge_base)
        source = request.source or f"text:{hashlib.sha256(request.text.encode()).hexdigest()}"
        origin, converted = note(source, request.text, request.metadata)
        stored = await self.parts.library.put(base, origin, converted, title=request.title)
        return StoreResult(
            document_id=stored.document_id, source=source, chunks=stored.chunks, changed=stored.changed, knowledge_base=base.name
        )

    async def query(self, who: Principal, request: QueryRequest) -> Answer:
        """An answer with citations."""
        async with self._limit():
            return await self._query(who, request)

    async def _query(self, who: Principal, request: QueryRequest) -> Answer:
        who.require(Scope.KB_READ)
        base = await self._base(who, request.knowledge_base)
        await record_query(self.parts, who.name, "query", base.name, request.query)
        if request.mode != "auto":
            return await self._answered(base, request)
        route = await self._router.route(request.query, has_graph=base.graph, filtered=bool(request.filters))
        answer = await self._answered(base, request.model_copy(update={"mode": route.mode}))
        return answer.model_copy(update={"mode": "auto", "routed_to": route.mode, "why": route.why})

    async def _answered(self, base: KnowledgeBase, request: QueryRequest) -> Answer:
        if request.mode != "naive" and not base.graph:
            raise KnowledgeBaseHasNoGraph
        filters = _plain(request.filters)
        where = vector_filter(filters)
        search = self.parts.search.search(base, request.query, limit=request.chunk_top_k, where=where)
        if request.mode == "naive" or where is not None:  # a graph cannot be filtered soundly: its summaries mix documents
            result, graph, degraded = await search, GraphAnswer(), None
        else:
            result, (graph, degraded) = await asyncio.gather(search, self._ask_graph(base, request))
        hits = await self._fuse(base, request, result, graph)
        if not result.found or not hits:
            return Answer(found=False, kind="none", answer="", citations=[], mode=request.mode, degraded=degraded, knowledge_base=base.name)
        composed = await Composer(self.parts.search, self.parts.embedder, self.parts.llm, self.parts.settings).compose(request.query, hits)
        return self._answer(base, request, hits, graph, replace(composed, degraded=composed.degraded or degraded))

    async def documents(
        self,
        who: Principal,
        *,
        knowledge_base: str = "default",
        source_prefix: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> DocumentList:
        """Documents in order of source."""
        who.require(Scope.KB_READ)
        base = await self._base(who, knowledge_base)
        binding = (who.name, "documents", str(base.id), source_prefix or "")
        after = self.parts.cursors.read(cursor, *binding)
        page = await self.parts.documents.list(base, prefix=source_prefix, limit=limit, after=after)
        following = self.parts.cursors.make(page.next, *binding) if page.next is not None else None
        return DocumentList(
            documents=[DocumentView(**document_view(document, base.name)) for document in page.documents],
            total=page.total,
            next_cursor=following,
        )

    async def document(
        self, who: Principal, document_id: UUID, *, knowledge_base: str = "default", offset: int = 0, max_tokens: int = 4000
    ) -> DocumentText:
        """A document's text from `offset` on."""
        who.require(Scope.KB_READ)
        base = await self._base(who, knowledge_base)
        part = await self.parts.documents.get(base, document_id, offset=offset, length=max_tokens * _CHARACTERS_A_TOKEN)
        return DocumentText(
            **document_view(part.document, base.name),
            text=part.text,
            offset=part.offset,
            next_offset=part.next_offset,
            flags=list(part.document.flags),
        )

    @asynccontextmanager
    async def _limit(self) -> AsyncIterator[None]:
        """Clients give up at 60 s: answer before that, whatever hangs."""
        try:
            async with asyncio.timeout(self.parts.settings.query.timeout.total_seconds()):
                yield
        except TimeoutError as error:
            raise QueryTimeout from error

    # -- the parts of an answer ---------------------------------------------------------------------------------------

    async def _ask_graph(self, base: KnowledgeBase, request: QueryRequest) -> tuple[GraphAnswer, str | None]:
        """What the graph says, or nothing and why."""
        assert request.mode != "auto"  # noqa: S101  routed by then
        try:
            answer = await self.parts.graph.query(
                base, request.query, mode=request.mode, top_k=request.top_k, chunk_top_k=request.chunk_top_k
            )
        except CircuitOpen:
            return GraphAnswer(), "graph_unavailable"
        except ShieldError as error:
            log.warning("graph.unavailable", code=error.code)
            return GraphAnswer(), "graph_unavailable"
        return answer, None

    async def _fuse(self, base: KnowledgeBase, request: QueryRequest, result: SearchResult, graph: GraphAnswer) -> list[Hit]:
        """The passages that the answer rests on, best first.

        `mix` takes both rankings; the other graph modes take the graph's, and the search's only where the graph names none.
        """
        named = sorted(graph.chunks, key=lambda chunk: chunk.rank)
        shared = await self.parts.search.load_chunks(base, [(chunk.graph_key, chunk.ordinal) for chunk in named])
        from_graph = [shared[chunk.graph_key, chunk.ordinal].hit for chunk in named if (chunk.graph_key, chunk.ordinal) in shared]
        if request.mode in {"local", "global", "hybrid"} and from_graph:
            return _ranked([from_graph], self.parts.settings.query.rrf_k)[: request.chunk_top_k]
        return _ranked([result.hits, from_graph], self.parts.settings.query.rrf_k)[: request.chunk_top_k]

    def _answer(
        self,
        base: KnowledgeBase,
        request: QueryRequest,
        hits: Sequence[Hit],
        graph: GraphAnswer,
        composed: Composed,
    ) -> Answer:
        passages, _ = passages_within(hits, request.max_tokens)
        return Answer(
            found=composed.found,
            kind=composed.kind,
            answer=composed.text,
            citations=[
                Citation(
                    number=number,
                    quote=quote.text,
                    source=quote.hit.source,
                    title=quote.hit.title,
                    document_id=quote.hit.ref.document_id,
                    chunk=quote.hit.ref.ordinal,
                    heading_path=list(quote.hit.heading_path),
                    page=quote.hit.page,
                    start=quote.start,
                    end=quote.end,
                )
                for number, quote in enumerate(composed.quotes, 1)
            ],
            passages=passages,
            entities=[EntityView(name=item.name, type=item.type, description=item.description) for item in graph.entities],
            relations=[
                RelationView(source=item.source, target=item.target, keywords=item.keywords, description=item.description)
                for item in graph.relations
            ],
            mode=request.mode,
            degraded=composed.degraded,
            knowledge_base=base.name,
        )


def _plain(filters: FilterInput) -> dict[str, Any]:
    """Filters without models: bounds as mappings."""
    return {name: value.model_dump(exclude_none=True) if isinstance(value, RangeFilter) else value for name, value in filters.items()}


def _ranked(rankings: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """Reciprocal rank fusion (Cormack et al., 2009) of several rankings; ties by source and place, so the order is fixed."""
    scores: dict[ChunkRef, float] = {}
    hits: dict[ChunkRef, Hit] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, 1):
            scores[hit.ref] = scores.get(hit.ref, 0.0) + 1.0 / (k + rank)
            known = hits.setdefault(hit.ref, hit)
            if known.similarity is None and hit.similarity is not None:
                hits[hit.ref] = hit
    ordered = sorted(hits.values(), key=lambda hit: (-scores[hit.ref], hit.source, hit.ref.ordinal))
    return [replace(hit, score=scores[hit.ref]) for hit in ordered]
