"""Filling a collection with the documents it lacks: from PostgreSQL's texts and cached vectors, embedding only what is not cached.

What a collection lacks stands in `missing_points`. A step takes some of these documents, writes the points of their live revisions and
takes their notes away, unless a document has changed meanwhile. That is true whoever does it and however often, so it needs no
fence and no cursor: a crash repeats one step, several processes may fill at once, and ingest goes on beside them.

A text that the model refuses does not stop the others; its note stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.errors import DependencyRejected, ReindexNotPossible
from shield.knowledge.bm25 import document_vector
from shield.knowledge.collections import Collection, collection_of
from shield.knowledge.draft import fields_of
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.model import Chunk, point_id
from shield.knowledge.vectors.port import Point, SpaceKey, VectorIndex

DOCUMENTS = 32
"""Documents a step."""
CHUNKS = 128
"""Chunks read, embedded and written at a time."""
MAX_REJECTED = 100
"""Refused documents after which the model itself is taken for the cause."""

_NEXT = text("""
    SELECT m.document_id, d.live_revision, d.source, d.kind, d.mime, d.fetched_at, d.metadata
    FROM missing_points m LEFT JOIN documents d ON d.id = m.document_id
    WHERE m.collection_id = :collection AND m.document_id <> ALL(CAST(:rejected AS uuid[]))
    ORDER BY m.document_id LIMIT :limit
""")
_CHUNKS = text("""
    SELECT c.document_id, c.revision, c.ordinal, c.text, c.heading_path
    FROM unnest(CAST(:documents AS uuid[]), CAST(:revisions AS bigint[])) AS w(document_id, revision)
    JOIN chunks c ON c.document_id = w.document_id AND c.revision = w.revision
    WHERE (c.document_id, c.ordinal) > (CAST(:after AS uuid), :ordinal)
    ORDER BY c.document_id, c.ordinal LIMIT :limit
""")
_LIVE = text("SELECT id, live_revision FROM documents WHERE id = ANY(:documents) ORDER BY id FOR SHARE")
_DONE = text("DELETE FROM missing_points WHERE collection_id = :collection AND document_id = ANY(:documents)")
_STATE = text("""
    SELECT c.*, c.state IN ('shadow', 'ready', 'live') OR (c.state = 'retired' AND c.keep_until > now()) AS written
    FROM collections c WHERE c.id = :collection
""")
_COUNT = text("SELECT count(*) FROM missing_points WHERE collection_id = :collection")


@dataclass(frozen=True)
class Step:
    """What one step did."""

    documents: int
    chunks: int


Report = Callable[[Step], Awaitable[None]]


async def nobody(_step: Step) -> None:
    """Nobody wants to know."""


class Filler:
    """Indexes what collections lack."""

    def __init__(self, engine: AsyncEngine, vectors: VectorIndex, embedders: CachedEmbedder) -> None:
        self._engine = engine
        self._vectors = vectors
        self._embedders = embedders

    async def missing(self, collection: Collection) -> int:
        """How many documents the collection may lack."""
        with database_errors():
            async with self._engine.connect() as connection:
                return int((await connection.execute(_COUNT, {"collection": collection.id})).scalar_one())

    async def fill(self, collection: Collection, report: Report = nobody, *, steps: int | None = None) -> dict[UUID, DependencyRejected]:
        """Index what is missing until nothing is, or for so many steps; returns the documents that the model refused.

        `report` is called after each step, and may raise to stop.

        Raises:
            DependencyMisconfigured: no embedder is configured for the collection's model.
            DependencyRejected: the model refuses about everything.
            ReindexNotPossible: the collection was given up meanwhile; nothing of the last step is left in it.
            ShieldError: the embedder's, the index's or the database's failure; go on later.
        """
        rejected: dict[UUID, DependencyRejected] = {}
        self._embedders.of(collection.space.model, collection.space.dim)
        while steps is None or steps > 0:
            wanted = await self._next(collection, rejected)
            if not wanted:
                break
            await report(await self._step(collection, wanted, rejected))
            steps = None if steps is None else steps - 1
            if len(rejected) >= MAX_REJECTED:
                raise next(iter(rejected.values()))
        return rejected

    async def _step(self, collection: Collection, wanted: Sequence[Any], rejected: dict[UUID, DependencyRejected]) -> Step:
        """Index some documents."""
        try:
            chunks = await self._index(collection.space, wanted)
            done = list(wanted)
        except DependencyRejected:  # find out which
            chunks, done = 0, []
            for row in wanted:
                try:
                    chunks += await self._index(collection.space, [row])
                    done.append(row)
                except DependencyRejected as error:
                    rejected[row.document_id] = error
        await self._settle(collection, done)
        return Step(len(done), chunks)

    async def _next(self, collection: Collection, rejected: dict[UUID, DependencyRejected]) -> Sequence[Any]:
        values = {"collection": collection.id, "rejected": list(rejected), "limit": DOCUMENTS}
        with database_errors():
            async with self._engine.connect() as connection:
                return (await connection.execute(_NEXT, values)).all()

    async def _index(self, space: SpaceKey, wanted: Sequence[Any]) -> int:
        """Write the points of these documents' revisions; returns how many."""
        embedder = self._embedders.of(space.model, space.dim)
        rows = {row.document_id: row for row in wanted if row.live_revision is not None}
        fields = {key: fields_of(row.source, row.kind, row.mime, row.fetched_at, row.metadata) for key, row in rows.items()}
        place = {"documents": list(rows), "revisions": [row.live_revision for row in rows.values()], "limit": CHUNKS}
        after, ordinal, written = UUID(int=0), -1, 0
        while rows:
            with database_errors():
                async with self._engine.connect() as connection:
                    part = (await connection.execute(_CHUNKS, {**place, "after": after, "ordinal": ordinal})).all()
            if not part:
                break
            texts = [Chunk(row.ordinal, row.text, 0, 0, 0, tuple(row.heading_path)).embedded_text for row in part]
            points = [
                Point(
                    id=point_id(space.knowledge_base_id, row.document_id, row.revision, row.ordinal),
                    document_id=row.document_id,
                    revision=row.revision,
                    ordinal=row.ordinal,
                    dense=vector,
                    sparse=document_vector(embedded),
                    fields=fields[row.document_id],
                )
                for row, embedded, vector in zip(part, texts, await embedder.embed(texts), strict=True)
            ]
            await self._vectors.upsert(space, points)
            written += len(points)
            after, ordinal = part[-1].document_id, part[-1].ordinal
        return written

    async def _settle(self, collection: Collection, indexed: Sequence[Any]) -> None:
        """Take away the notes of documents that are still what was indexed, and the points of the others."""
        ids = [row.document_id for row in indexed]
        with database_errors():
            async with self._engine.begin() as connection:
                live = {row.id: row.live_revision for row in await connection.execute(_LIVE, {"documents": ids})}
                row = (await connection.execute(_STATE, {"collection": collection.id})).one_or_none()
                wanted = row is not None and collection_of(row).written
                same = [row for row in indexed if live.get(row.document_id) == row.live_revision]
                await connection.execute(_DONE, {"collection": collection.id, "documents": [row.document_id for row in same]})
        kept = {row.document_id for row in same} if wanted else set()
        for row in indexed:
            if row.document_id not in kept and row.live_revision is not None:
                await self._vectors.delete_revision(collection.space, row.document_id, row.live_revision)
        if not wanted:
            raise ReindexNotPossible("The collection was given up while it was filled.")
