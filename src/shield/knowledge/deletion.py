"""Deleting a document, or a whole base, and proving it.

`begin` makes it invisible in one fenced transaction, removes its vectors and asks the graph to let go; the job then waits without a
slot. `finish` removes everything else in this order, each step safe to do again:

1. what hangs on the document: chunks, cached vectors, extractions, uploads, page bodies, payloads, notes; and its vectors once more;
2. the search for anything left (`proof.py`), for which the document's own text, still in `document_revisions`, says what to look for;
3. in one fenced transaction: that text and the document's row, and the proof.

So a crash before 3 loses nothing that the proof needs, and after 3 nothing is left to do. Should the search find something, the text is removed all
the same and the proof says where the rest is. `next_revision` in the proof keeps the numbers of a source that comes back above those
of writers from before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database import tables as t
from shield.database.engine import database_errors
from shield.database.fence import JobFence, require_fence
from shield.errors import DependencyUnavailable, UnknownDocument
from shield.knowledge.bases import Bases, space_of
from shield.knowledge.collections import spaces_of
from shield.knowledge.deletion_rows import (
    found_traces,
    hidden,
    hide,
    own_graph_keys,
    proofs_of,
    remove_documents,
    remove_what_hangs_on,
    uploads_of,
)
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.needles import Needles, all_strings
from shield.knowledge.proof import Mark, Proof, Prover
from shield.knowledge.vectors.port import SpaceKey, VectorIndex
from shield.settings import LibrarySettings

EraseUpload = Callable[[UUID], Awaitable[object]]


class Deletion:
    """Removes documents and bases."""

    def __init__(
        self,
        engine: AsyncEngine,
        vectors: VectorIndex,
        embedder: CachedEmbedder,
        data_dir: Path | None,
        *,
        erase_upload: EraseUpload | None = None,
        settings: LibrarySettings | None = None,
    ) -> None:
        """`data_dir`: whose files are searched, None where there is none; `erase_upload` removes an upload with its file."""
        self._engine = engine
        self._vectors = vectors
        self._embedder = embedder
        self._data_dir = data_dir
        self._erase_upload = erase_upload
        self._settings = settings or LibrarySettings()
        self._bases = Bases(engine, embedder.model, embedder.dim)

    async def begin(self, kb: KnowledgeBase, document: UUID, job: JobFence) -> bool:
        """Make a document invisible and start its removal; True while the graph still has to let go of it.

        Raises:
            UnknownDocument: the base has no such document, and this job did not delete it.
            DependencyUnavailable: the graph gave up removing it for this job.
            LeaseLost: another worker runs this job now.
        """
        with database_errors():
            async with self._engine.begin() as connection:
                found = await hide(connection, kb, [document], job)
                await require_fence(connection, job.job_id, job.fence)
        if not found and not await proofs_of(self._engine, job.job_id, document):
            raise UnknownDocument
        await self._remove_points(kb, found)
        return await self._graph_waits([row.id for row in found], job)

    async def finish(self, kb: KnowledgeBase, document: UUID, job: JobFence) -> Proof:
        """Remove all that is left of a document after `begin`, and prove it; the proof is stored.

        Raises:
            UnknownDocument: there is nothing to finish.
            DependencyUnavailable: the graph has not let go yet.
            LeaseLost: another worker runs this job now.
        """
        with database_errors():
            async with self._engine.connect() as connection:
                present = await hidden(connection, kb, limit=1, documents=[document])
        proofs = await self._finish(kb, present, job) if present else await proofs_of(self._engine, job.job_id, document)
        if not proofs:
            raise UnknownDocument
        return proofs[0]

    async def begin_all(self, kb: KnowledgeBase, documents: Sequence[UUID], job: JobFence) -> bool:
        """`begin` for many at once; those that the base has not are left out.

        Raises:
            DependencyUnavailable, LeaseLost: as `begin`.
        """
        waits = False
        for some in _batches(documents, self._settings.max_delete_batch):
            with database_errors():
                async with self._engine.begin() as connection:
                    found = await hide(connection, kb, some, job)
                    await require_fence(connection, job.job_id, job.fence)
            await self._remove_points(kb, found)
            waits |= await self._graph_waits([row.id for row in found], job)
        return waits

    async def finish_all(self, kb: KnowledgeBase, documents: Sequence[UUID], job: JobFence) -> dict[UUID, Proof]:
        """`finish` for many at once, all looked for in one search; those that are gone already are left out, but for this job's.

        Raises:
            DependencyUnavailable, LeaseLost: as `finish`.
        """
        with database_errors():
            async with self._engine.connect() as connection:
                present = await hidden(connection, kb, limit=len(documents), documents=documents)
        proofs = await self._finish(kb, present, job) if present else []
        return {
            proof.document_id: proof for proof in (*await proofs_of(self._engine, job.job_id), *proofs) if proof.document_id in documents
        }

    async def begin_base(self, kb: KnowledgeBase, job: JobFence) -> bool:
        """Make a whole base invisible and start its removal; True while its graph still has to let go.

        Raises:
            KnowledgeBaseProtected: it is `default`.
            DependencyUnavailable, LeaseLost: as `begin`.
        """
        await self._bases.mark_deleting(kb)
        waits = False
        while True:
            with database_errors():
                async with self._engine.begin() as connection:
                    some = (
                        select(t.documents.c.id)
                        .where(t.documents.c.knowledge_base_id == kb.id, ~t.documents.c.deleting)
                        .limit(self._settings.max_delete_batch)
                    )
                    ids = list((await connection.execute(some)).scalars())
                    found = await hide(connection, kb, ids, job)
                    await require_fence(connection, job.job_id, job.fence)
            if not ids:
                break
            await self._remove_points(kb, found)
        with database_errors():
            async with self._engine.connect() as connection:
                everything = list(
                    (await connection.execute(select(t.documents.c.id).where(t.documents.c.knowledge_base_id == kb.id))).scalars()
                )
        for start in range(0, len(everything), 1000):
            waits |= await self._graph_waits(everything[start : start + 1000], job)
        return waits

    async def finish_base(self, kb: KnowledgeBase, job: JobFence) -> list[Proof]:
        """Remove all documents of a base that `begin_base` hid, each with its proof, then the base itself.

        Raises:
            DependencyUnavailable, LeaseLost: as `finish`.
        """
        proofs: list[Proof] = []
        while True:
            with database_errors():
                async with self._engine.connect() as connection:
                    batch = await hidden(connection, kb, limit=self._settings.max_delete_batch)
            if not batch:
                break
            proofs += await self._finish(kb, batch, job)
        for space in await self._spaces(kb):
            await self._vectors.drop(space)
        with database_errors():
            async with self._engine.begin() as connection:
                for table in (t.graph_tasks, t.graph_members, t.extractions, t.stale_points):
                    await connection.execute(delete(table).where(table.c.knowledge_base_id == kb.id))
                await connection.execute(delete(t.kb_writer).where(t.kb_writer.c.kb == kb.id.hex))
                await require_fence(connection, job.job_id, job.fence)
        await self._bases.remove(kb)
        return proofs

    async def left_traces(self, job_id: UUID) -> bool:
        """Whether a proof of this job found something, in this run or an earlier one, or one of the jobs that it is a retry of."""
        with database_errors():
            async with self._engine.connect() as connection:
                return await found_traces(connection, job_id)

    # -- steps --------------------------------------------------------------------------------------------------------

    async def _finish(self, kb: KnowledgeBase, present: Sequence[Any], job: JobFence) -> list[Proof]:
        ids = [row.id for row in present]
        if await self._graph_waits(ids, job):
            raise DependencyUnavailable("The graph has not let go of the document yet.", retry_after=5)
        prover = await self._what_to_look_for(present)
        with database_errors():
            async with self._engine.begin() as connection:
                uploads = await uploads_of(connection, ids)
                hashes = await remove_what_hangs_on(connection, kb, ids, uploads if self._erase_upload is None else ())
                await require_fence(connection, job.job_id, job.fence)
        if self._erase_upload is not None:
            for upload in uploads:
                await self._erase_upload(upload)
        await self._embedder.forget(hashes)
        await self._remove_points(kb, present)  # what a cut-off write may have added since `begin`
        proofs = await prover.prove(self._engine, self._vectors, await self._spaces(kb), self._data_dir)
        with database_errors():
            async with self._engine.begin() as connection:
                await remove_documents(connection, proofs, job)
                await require_fence(connection, job.job_id, job.fence)
        return proofs

    async def _remove_points(self, kb: KnowledgeBase, rows: Sequence[Any]) -> None:
        """Remove the points of documents, but none of a later life of theirs, should this worker have been paused and overtaken."""
        for space, row in product(await self._spaces(kb), rows):
            revisions = {int(str(payload["revision"])) async for _, payload in self._vectors.scan(space, document_id=row.id)}
            for revision in sorted(revisions):
                if revision < row.next_revision:
                    await self._vectors.delete_revision(space, row.id, revision)

    async def _spaces(self, kb: KnowledgeBase) -> tuple[SpaceKey, ...]:
        """All collections where points of the base may lie."""
        with database_errors():
            async with self._engine.connect() as connection:
                spaces = await spaces_of(connection, kb.id)
        return spaces.all if spaces else (space_of(kb),)

    async def _what_to_look_for(self, present: Sequence[Any]) -> Prover:
        needles = Needles()
        marks: list[Mark] = []
        for row in present:
            with database_errors():
                async with self._engine.connect() as connection:
                    r = t.document_revisions
                    own = select(r.c.text, r.c.title, r.c.metadata, r.c.graph_key).where(r.c.document_id == row.id)
                    revisions = (await connection.execute(own)).all()
                    keys = await own_graph_keys(connection, row.id, {revision.graph_key for revision in revisions})
            marks.append(Mark(row.id, row.source, keys))
            for revision in revisions:
                whole = "\n".join((revision.title, revision.text, *all_strings(revision.metadata)))
                await asyncio.to_thread(needles.add, row.id, whole, besides=row.source)
        return Prover(needles, marks)

    async def _graph_waits(self, documents: Sequence[UUID], job: JobFence) -> bool:
        g = t.graph_tasks
        open_steps = select(func.count()).where(g.c.document_id.in_(documents), g.c.status == "pending")
        newer = g.alias()
        given_up = select(g.c.id).where(
            g.c.document_id.in_(documents),
            g.c.job_id == job.job_id,
            g.c.operation == "remove",
            g.c.status == "failed",
            ~exists().where(newer.c.document_id == g.c.document_id, newer.c.graph_key == g.c.graph_key, newer.c.id > g.c.id),
        )
        with database_errors():
            async with self._engine.connect() as connection:
                if (await connection.execute(given_up.limit(1))).first() is not None:
                    raise DependencyUnavailable("The graph could not let go of the document; delete it again once its cause is mended.")
                return bool((await connection.execute(open_steps)).scalar_one())


def _batches(items: Sequence[UUID], size: int) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
