"""The library: storing documents so that readers see the old version or the new one, never both and never neither.

`put` writes a new revision's rows, embeds its chunks and writes its points, all invisible, then makes it live in one transaction under
the job's fence, and only then removes what it replaced. A search drops every hit whose revision is not live. A crash at any
point leaves garbage that is named in `stale_points` and that `sweep` (see `sweep.py`) removes; doing the put again is always right. Of two
writes of one source at once the later revision wins, and both return. Content that did not change is not stored or embedded again.

Cost of a put: four short transactions and one embedding a new chunk; no transaction is open while it embeds.
"""

from __future__ import annotations

import asyncio
import contextlib
from uuid import UUID

import structlog
from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.fence import JobFence, require_fence
from shield.database.tables import documents
from shield.errors import DocumentDeleting, LeaseLost, ShieldError
from shield.knowledge import revisions
from shield.knowledge.bases import require_model, space_of
from shield.knowledge.bm25 import document_vector
from shield.knowledge.draft import Draft, prepare
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.model import KnowledgeBase, Stored, point_id
from shield.knowledge.vectors.port import Point, VectorIndex
from shield.sources.model import Converted, Source

_BATCH = 128  # chunks embedded and indexed at a time: bounds memory, and lets a cancellation in

_log = structlog.get_logger(__name__)


class Library:
    """Stores documents. The embedder must be the one of the knowledge bases it is used with."""

    def __init__(self, engine: AsyncEngine, vectors: VectorIndex, embedder: CachedEmbedder) -> None:
        self._engine = engine
        self._vectors = vectors
        self._embedder = embedder

    async def put(
        self, kb: KnowledgeBase, source: Source, converted: Converted, *, title: str | None = None, job: JobFence | None = None
    ) -> Stored:
        """Store a document under its source, replacing the version before it; when this returns it is durable and searchable.

        `title` wins over the one found in the document. `changed` is True for what this job stored, also when an earlier run of the job
        (cut off before it could say so) had stored it.

        Raises:
            DocumentEmpty: it has no text.
            DocumentDeleting: it is being deleted; nothing was stored.
            UnknownKnowledgeBase: the base is gone.
            DependencyMisconfigured: the base was made with another embedding model.
            LeaseLost: another worker runs this job now; readers saw nothing of this write.
            ShieldError: the embedder's or the index's failure; readers saw nothing, do it again.
        """
        require_model(kb, self._embedder)
        draft = await asyncio.to_thread(prepare, kb, source, converted, title, self._embedder.count_tokens)
        if (known := await self._unchanged(kb, draft, job)) is not None:
            return known
        with database_errors():
            async with self._engine.begin() as connection:
                revision = await revisions.allocate(connection, kb, draft, job)
                if job is not None:
                    await require_fence(connection, job.job_id, job.fence)
        await self._index(kb, draft, revision)
        try:
            with database_errors():
                async with self._engine.begin() as connection:
                    published = await revisions.publish(connection, kb, draft, revision, job)
                    if job is not None:
                        await require_fence(connection, job.job_id, job.fence)
        except (DocumentDeleting, LeaseLost):
            # Nobody will ever see this revision, and who took over may have removed its points before the last of them were written.
            with contextlib.suppress(ShieldError):
                await self._vectors.delete_revision(space_of(kb), draft.document_id, revision)
            raise
        if published.dead is not None:
            await self._remove_dead(kb, draft.document_id, published.dead)
        return Stored(draft.document_id, revision, changed=True, chunks=len(draft.chunks), graph_task=published.graph_task)

    async def _unchanged(self, kb: KnowledgeBase, draft: Draft, job: JobFence | None) -> Stored | None:
        """What is stored already, if it is the same; its graph step is asked for again if it had failed."""
        with database_errors():
            async with self._engine.begin() as connection:
                row = await revisions.current(connection, draft.document_id)
                if row is None or row.deleting or row.live_revision is None or row.content_hash != draft.content_hash:
                    return None
                if draft.fetched_at is not None:
                    newest = func.greatest(documents.c.fetched_at, draft.fetched_at)
                    await connection.execute(update(documents).where(documents.c.id == draft.document_id).values(fetched_at=newest))
                task = None
                if kb.graph:
                    task = await revisions.renew_failed_graph_task(connection, kb, draft.document_id, draft.graph_key, job)
                if job is not None:
                    await require_fence(connection, job.job_id, job.fence)
        ours = job is not None and row.job_id == job.job_id
        return Stored(draft.document_id, row.live_revision, changed=ours, chunks=len(draft.chunks), graph_task=task)

    async def _index(self, kb: KnowledgeBase, draft: Draft, revision: int) -> None:
        fields = draft.fields
        for start in range(0, len(draft.chunks), _BATCH):
            batch = draft.chunks[start : start + _BATCH]
            dense = await self._embedder.embed([piece.embedded_text for piece in batch])
            points = [
                Point(
                    id=point_id(kb.id, draft.document_id, revision, piece.ordinal),
                    document_id=draft.document_id,
                    revision=revision,
                    ordinal=piece.ordinal,
                    dense=vector,
                    sparse=document_vector(piece.embedded_text),
                    fields=fields,
                )
                for piece, vector in zip(batch, dense, strict=True)
            ]
            await self._vectors.upsert(space_of(kb), points)

    async def _remove_dead(self, kb: KnowledgeBase, document: UUID, revision: int) -> None:
        """Remove what nobody will see again; a failure here is the sweeper's to mend, the document is stored."""
        try:
            await self._vectors.delete_revision(space_of(kb), document, revision)
            with database_errors():
                async with self._engine.begin() as connection:
                    hashes = await revisions.remove_rows(connection, document, [revision])
                    await revisions.forget_points(connection, [(document, revision)])
            await self._embedder.forget(hashes)
        except ShieldError as error:
            _log.warning("old revision not yet removed", document_id=str(document), code=error.code)
