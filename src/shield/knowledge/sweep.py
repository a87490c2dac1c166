"""Removing what cut-off writes left behind; nothing here is ever visible to a reader, so no hurry, but nothing stays for ever.

`sweep` follows the notes in `stale_points`: a revision is garbage when its writer is certainly gone, that is when the job that wrote it has
ended or runs under a newer fence, or when a write without a job is older than `library.abandoned_after`. The rows go first, so a
writer that wakes up finds its revision gone and cannot publish it; then the points; the note last, so a crash here repeats the work.

`reconcile` reads a whole vector space and removes every point that no live or unfinished revision owns: the answer to a process that was
paused in the middle of a write for longer than everything above. It costs a scan, so it belongs to a start or a quiet hour.

`sweep` also ends what a reindex left behind: collections that are given up or past their rollback window are dropped, and what one that is
kept could not take in (its model was away) is indexed now.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import bindparam, text, tuple_
from sqlalchemy import select as sql_select
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import document_revisions, documents, stale_points
from shield.errors import ShieldError
from shield.knowledge import revisions
from shield.knowledge.bases import space_of
from shield.knowledge.collections import Collection, collection_of, spaces_of
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.filling import Filler
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.vectors.port import SpaceKey, VectorIndex
from shield.settings import LibrarySettings

_LIMIT = 500

_log = structlog.get_logger(__name__)

_GARBAGE = text("""
    SELECT s.document_id, s.revision, s.knowledge_base_id
    FROM stale_points s
    LEFT JOIN document_revisions r ON r.document_id = s.document_id AND r.revision = s.revision
    LEFT JOIN jobs j ON j.id = r.job_id
    WHERE CASE
        WHEN r.document_id IS NULL THEN true
        WHEN r.job_id IS NULL THEN s.since < now() - :abandoned
        ELSE j.id IS NULL OR j.fence <> r.fence OR j.status <> 'processing'
    END
    ORDER BY s.since LIMIT :limit
""").bindparams(bindparam("abandoned"), bindparam("limit"))

_UNUSED_VECTORS = text("""
    DELETE FROM embeddings e WHERE (e.model, e.text_hash) IN (
        SELECT model, text_hash FROM embeddings o
        WHERE o.created_at < now() - :keep AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.embed_hash = o.text_hash)
        LIMIT 5000
    )
""")
# Models by one index probe each, then those that no base, collection or new document uses.
_UNUSED_MODELS = text("""
    DELETE FROM embeddings WHERE (model, text_hash) IN (
        WITH RECURSIVE m(model) AS (
            SELECT min(model) FROM embeddings UNION ALL SELECT (SELECT min(model) FROM embeddings WHERE model > m.model) FROM m WHERE m.model IS NOT NULL
        )
        SELECT e.model, e.text_hash FROM m CROSS JOIN LATERAL (
            SELECT model, text_hash FROM embeddings WHERE model = m.model AND created_at < now() - :keep LIMIT 5000
        ) e
        WHERE e.model <> :own
          AND NOT EXISTS (SELECT 1 FROM collections c WHERE e.model = c.model || ':' || c.dim)
          AND NOT EXISTS (
            SELECT 1 FROM knowledge_bases k
            WHERE e.model IN (k.embedding_model || ':' || k.embedding_dim, k.founding_model || ':' || k.founding_dim)
          )
    )
""")
_GIVE_UP = text("""
    UPDATE collections c SET state = 'failed'
    WHERE c.state = 'shadow' AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = c.job_id AND j.status IN ('pending', 'processing'))
""")
_DROPPABLE = "c.state = 'failed' OR (c.state = 'retired' AND c.keep_until <= now())"
_TO_DROP = text(f"SELECT c.id FROM collections c WHERE {_DROPPABLE}")  # noqa: S608  our own names
_LOCKED = text(f"SELECT c.*, false AS written FROM collections c WHERE c.id = :id AND ({_DROPPABLE}) FOR UPDATE SKIP LOCKED")  # noqa: S608
_DROPPED = text("DELETE FROM collections WHERE id = :id")
_BEHIND = text("""
    SELECT c.*, true AS written FROM collections c
    WHERE (c.state = 'ready' OR (c.state = 'retired' AND c.keep_until > now()))
      AND EXISTS (SELECT 1 FROM missing_points m WHERE m.collection_id = c.id)
""")

_CATCH_UP = 100  # steps a collection and sweep


class Sweeper:
    """Removes abandoned revisions; several processes may run it at once."""

    def __init__(self, engine: AsyncEngine, vectors: VectorIndex, embedder: CachedEmbedder, settings: LibrarySettings) -> None:
        self._engine = engine
        self._vectors = vectors
        self._embedder = embedder
        self._settings = settings

    async def sweep(self) -> int:
        """Remove abandoned revisions with their points, and cached vectors long unused; returns how many revisions.

        Raises:
            ShieldError: the database or the index fails; what was not removed stays noted.
        """
        removed = 0
        while batch := await self._garbage():
            for document, revision, base_id in batch:
                await self._remove(document, revision, base_id)
            removed += len(batch)
            if len(batch) < _LIMIT:
                break
        await self._drop_unused_vectors(self._settings.cache_keep)
        await self._drop_collections()
        await self._catch_up()
        return removed

    async def reconcile(self, kb: KnowledgeBase) -> int:
        """Remove the points of a base that belong to no live or unfinished revision; returns of how many revisions."""
        with database_errors():
            async with self._engine.connect() as connection:
                spaces = await spaces_of(connection, kb.id)
        return sum([await self._reconcile(space) for space in (spaces.all if spaces else (space_of(kb),))])

    async def _reconcile(self, space: SpaceKey) -> int:
        seen: set[tuple[UUID, int]] = set()
        async for _, payload in self._vectors.scan(space):
            seen.add((UUID(str(payload["document"])), int(str(payload["revision"]))))
        orphans: list[tuple[UUID, int]] = []
        ordered = sorted(seen)
        for start in range(0, len(ordered), _LIMIT):
            part = ordered[start : start + _LIMIT]
            known = await self._known(part)
            orphans += [pair for pair in part if pair not in known]
        for document, revision in orphans:
            await self._vectors.delete_revision(space, document, revision)
        return len(orphans)

    async def _garbage(self) -> Sequence[tuple[UUID, int, UUID]]:
        with database_errors():
            async with self._engine.connect() as connection:
                rows = await connection.execute(_GARBAGE, {"abandoned": self._settings.abandoned_after, "limit": _LIMIT})
                return [(row.document_id, row.revision, row.knowledge_base_id) for row in rows]

    async def _remove(self, document: UUID, revision: int, base_id: UUID) -> None:
        with database_errors():
            async with self._engine.begin() as connection:
                lock = sql_select(documents.c.live_revision).where(documents.c.id == document).with_for_update()
                row = (await connection.execute(lock)).one_or_none()
                if row is not None and row.live_revision == revision:  # published since we looked: the note is void
                    await revisions.forget_points(connection, [(document, revision)])
                    return
                hashes = await revisions.remove_rows(connection, document, [revision])
                spaces = await spaces_of(connection, base_id)
        for space in spaces.all if spaces else ():  # otherwise they were dropped with their base
            await self._vectors.delete_revision(space, document, revision)
        with database_errors():
            async with self._engine.begin() as connection:
                await revisions.forget_points(connection, [(document, revision)])
        await self._embedder.forget(hashes)

    async def _drop_collections(self) -> None:
        """Drop what a reindex has no use for; the row stays locked meanwhile, so that no new reindex takes it over half dropped."""
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(_GIVE_UP)
                dead = list((await connection.execute(_TO_DROP)).scalars())
            for key in dead:
                async with self._engine.begin() as connection:
                    row = (await connection.execute(_LOCKED, {"id": key})).one_or_none()
                    if row is not None:
                        await self._vectors.drop(collection_of(row).space)
                        await connection.execute(_DROPPED, {"id": key})

    async def _catch_up(self) -> None:
        """Index what kept collections lack; one whose model is away does not hold up the others."""
        with database_errors():
            async with self._engine.connect() as connection:
                behind: list[Collection] = [collection_of(row) for row in await connection.execute(_BEHIND)]
        for collection in behind:
            try:
                await Filler(self._engine, self._vectors, self._embedder).fill(collection, steps=_CATCH_UP)
            except ShieldError as error:
                _log.warning("collection stays behind", state=collection.state, code=error.code)

    async def _known(self, pairs: Sequence[tuple[UUID, int]]) -> set[tuple[UUID, int]]:
        """Those of the pairs that a reader may see, or that a writer may still publish."""
        owned = sql_select(document_revisions.c.document_id, document_revisions.c.revision).where(
            tuple_(document_revisions.c.document_id, document_revisions.c.revision).in_(pairs)
        )
        noted = sql_select(stale_points.c.document_id, stale_points.c.revision).where(
            tuple_(stale_points.c.document_id, stale_points.c.revision).in_(pairs)
        )
        with database_errors():
            async with self._engine.connect() as connection:
                return {(row[0], row[1]) for row in await connection.execute(owned.union(noted))}

    async def _drop_unused_vectors(self, keep: timedelta) -> None:
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(_UNUSED_VECTORS, {"keep": keep})
                await connection.execute(_UNUSED_MODELS, {"keep": keep, "own": f"{self._embedder.model}:{self._embedder.dim}"})
