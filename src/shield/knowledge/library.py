"""The library: storing documents so that readers see the old version or the new one, never both and never neither.

`put` writes a new revision's rows, embeds its chunks and writes its points, all invisible, then makes it live in one transaction under
the job's fence, and only then removes what it replaced. A search drops every hit whose revision is not live. A crash at any
point leaves garbage that is named in `stale_points` and that `sweep` (see `sweep.py`) removes; doing the put again is always right. Of two
writes of one source at once the later revision wins, and both return. Content that did not change is not stored or embedded again.

While a base has more than its live collection (a reindex, or the time after one), a put writes to all of them. Only the live one can fail
a put: what another could not take is noted as missing there, and indexed later (`filling.py`).

Cost of a put: four short transactions and one embedding a new chunk and collection; no transaction is open while it embeds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from uuid import UUID

import structlog
from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.fence import JobFence, require_fence
from shield.database.tables import documents
from shield.errors import DependencyMisconfigured, DocumentDeleting, LeaseLost, ShieldError
from shield.knowledge import revisions
from shield.knowledge.bases import embedder_of, space_of
from shield.knowledge.bm25 import document_vector
from shield.knowledge.collections import Spaces, beyond, note_missing, spaces_of
from shield.knowledge.draft import Draft, prepare
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.model import KnowledgeBase, Stored, point_id
from shield.knowledge.revisions import Published
from shield.knowledge.vectors.port import Point, SpaceKey, VectorIndex
from shield.sources.model import Converted, Source

_BATCH = 128  # chunks embedded and indexed at a time: bounds memory, and lets a cancellation in

_log = structlog.get_logger(__name__)


class Library:
    """Stores documents; `embedders` has the models of the knowledge bases it is used with."""

    def __init__(self, engine: AsyncEngine, vectors: VectorIndex, embedders: CachedEmbedder) -> None:
        self._engine = engine
        self._vectors = vectors
        self._embedders = embedders

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
            DependencyMisconfigured: no embedder is configured for the base's model, or the installation's is not that of its graph.
            LeaseLost: another worker runs this job now; readers saw nothing of this write.
            ShieldError: the embedder's or the index's failure; readers saw nothing, do it again.
        """
        self._require_graph_model(kb)
        draft = await asyncio.to_thread(prepare, kb, source, converted, title, self._counter(kb))
        if (known := await self._unchanged(kb, draft, job)) is not None:
            return known
        with database_errors():
            async with self._engine.begin() as connection:
                revision = await revisions.allocate(connection, kb, draft, job)
                spaces = await spaces_of(connection, kb.id) or Spaces(space_of(kb))
                if job is not None:
                    await require_fence(connection, job.job_id, job.fence)
        indexed = await self._index_everywhere(kb, draft, revision, spaces)
        try:
            published, spaces = await self._publish(kb, draft, revision, job, indexed)
        except (DocumentDeleting, LeaseLost):
            # Nobody will ever see this revision, and who took over may have removed its points before the last of them were written.
            with contextlib.suppress(ShieldError):
                for space in indexed:
                    await self._vectors.delete_revision(space, draft.document_id, revision)
            raise
        if published.dead is not None:
            await self._remove_dead({*spaces.all, *indexed}, draft.document_id, published.dead)
        return Stored(draft.document_id, revision, changed=True, chunks=len(draft.chunks), graph_task=published.graph_task)

    def _require_graph_model(self, kb: KnowledgeBase) -> None:
        """The graph keeps the vectors it was made with, and its processes have one model: that of the installation."""
        if kb.graph and kb.founded_on != (self._embedders.model, self._embedders.dim):
            raise DependencyMisconfigured(
                f"The graph of the knowledge base `{kb.name}` has vectors of {kb.founded_on[0]}: SHIELD_EMBEDDING_* must name that model, "
                "and SHIELD_SHADOW_* the other one.",
                service="embedding",
            )

    def _counter(self, kb: KnowledgeBase) -> Callable[[str], int]:
        """Counts tokens as the model that the base was made with, so that a reindex does not change how documents are cut."""
        embedder = embedder_of(kb, self._embedders)
        with contextlib.suppress(DependencyMisconfigured):  # it may not be configured any more
            embedder = self._embedders.of(*kb.founded_on)
        return embedder.count_tokens

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

    async def _publish(
        self, kb: KnowledgeBase, draft: Draft, revision: int, job: JobFence | None, indexed: set[SpaceKey]
    ) -> tuple[Published, Spaces]:
        """Make the revision live; what a written collection lacks of it is noted in the same transaction."""
        while True:
            with database_errors():
                async with self._engine.begin() as connection:
                    spaces = await spaces_of(connection, kb.id, share=True) or Spaces(space_of(kb))
                    if spaces.live in indexed:
                        published = await revisions.publish(connection, kb, draft, revision, job)
                        await note_missing(connection, beyond(spaces, indexed), draft.document_id)
                        if job is not None:
                            await require_fence(connection, job.job_id, job.fence)
                        return published, spaces
            await self._index(kb, draft, revision, spaces.live)  # a flip came in between
            indexed.add(spaces.live)

    async def _index_everywhere(self, kb: KnowledgeBase, draft: Draft, revision: int, spaces: Spaces) -> set[SpaceKey]:
        """Write the points to the live collection, and to the others as far as they take them; returns where they are."""
        await self._index(kb, draft, revision, spaces.live)
        indexed = {spaces.live}
        for other in spaces.written:
            try:
                await self._index(kb, draft, revision, other.space)
                indexed.add(other.space)
            except ShieldError as error:
                _log.warning("not yet in the other collection", document_id=str(draft.document_id), state=other.state, code=error.code)
        return indexed

    async def _index(self, kb: KnowledgeBase, draft: Draft, revision: int, space: SpaceKey) -> None:
        fields, embedder = draft.fields, self._embedders.of(space.model, space.dim)
        for start in range(0, len(draft.chunks), _BATCH):
            batch = draft.chunks[start : start + _BATCH]
            dense = await embedder.embed([piece.embedded_text for piece in batch])
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
            await self._vectors.upsert(space, points)

    async def _remove_dead(self, spaces: Iterable[SpaceKey], document: UUID, revision: int) -> None:
        """Remove what nobody will see again; a failure here is the sweeper's to mend, the document is stored."""
        try:
            for space in spaces:
                await self._vectors.delete_revision(space, document, revision)
            with database_errors():
                async with self._engine.begin() as connection:
                    hashes = await revisions.remove_rows(connection, document, [revision])
                    await revisions.forget_points(connection, [(document, revision)])
            await self._embedders.forget(hashes)
        except ShieldError as error:
            _log.warning("old revision not yet removed", document_id=str(document), code=error.code)
