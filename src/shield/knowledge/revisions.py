"""The rows behind documents and their revisions; every function works inside its caller's transaction.

Life of a revision: `allocate` writes its rows and, in `stale_points`, the note that its points are to be removed; `publish`
takes that note away and makes the revision live in the same transaction that leaves a note for the one before it. So
whatever a crash leaves behind is named in `stale_points`, and nothing else is garbage. Whoever changes a document locks its row first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.database.fence import JobFence
from shield.database.tables import chunks, deletion_proofs, document_revisions, documents, graph_tasks, knowledge_bases, stale_points
from shield.errors import DocumentDeleting, LeaseLost, UnknownKnowledgeBase
from shield.knowledge.draft import Draft
from shield.knowledge.model import KnowledgeBase


@dataclass(frozen=True)
class Published:
    """What publishing made of it."""

    dead: int | None
    """The revision that nobody will see again: the one before, or our own if another write was later."""
    graph_task: int | None


async def current(connection: AsyncConnection, document: UUID) -> Any:
    """The document's row with the writer and graph key of its live revision, or None."""
    live = (document_revisions.c.document_id == documents.c.id) & (document_revisions.c.revision == documents.c.live_revision)
    statement = (
        select(
            documents.c.live_revision,
            documents.c.content_hash,
            documents.c.deleting,
            document_revisions.c.job_id,
            document_revisions.c.graph_key,
        )
        .select_from(documents.outerjoin(document_revisions, live))
        .where(documents.c.id == document)
    )
    return (await connection.execute(statement)).one_or_none()


async def allocate(connection: AsyncConnection, kb: KnowledgeBase, draft: Draft, job: JobFence | None) -> int:
    """Write a new revision that nobody sees yet, with its chunks, and return its number.

    Raises:
        DocumentDeleting: the document is being deleted.
        UnknownKnowledgeBase: the base is gone or going.
    """
    base = select(knowledge_bases.c.id).where(knowledge_bases.c.id == kb.id, ~knowledge_bases.c.deleting).with_for_update(read=True)
    if (await connection.execute(base)).first() is None:
        raise UnknownKnowledgeBase
    deleted_before = select(func.coalesce(func.max(deletion_proofs.c.next_revision), 1)).where(
        deletion_proofs.c.document_id == draft.document_id
    )
    await connection.execute(
        upsert(documents)
        .values(
            id=draft.document_id,
            knowledge_base_id=kb.id,
            source=draft.source,
            kind=draft.kind,
            next_revision=deleted_before.scalar_subquery(),
        )
        .on_conflict_do_nothing(index_elements=[documents.c.id])
    )
    row = (
        await connection.execute(
            update(documents)
            .where(documents.c.id == draft.document_id, ~documents.c.deleting)
            .values(next_revision=documents.c.next_revision + 1)
            .returning(documents.c.next_revision)
        )
    ).one_or_none()
    if row is None:
        raise DocumentDeleting
    revision = int(row.next_revision) - 1
    await _write(connection, draft, revision, job)
    await connection.execute(insert(stale_points).values(document_id=draft.document_id, revision=revision, knowledge_base_id=kb.id))
    return revision


async def publish(connection: AsyncConnection, kb: KnowledgeBase, draft: Draft, revision: int, job: JobFence | None) -> Published:
    """Make a revision live unless a later one is; the caller checks the job's fence before the commit.

    Raises:
        DocumentDeleting: the document is being deleted, or is gone.
        LeaseLost: the revision was swept as abandoned.
    """
    lock = select(documents.c.live_revision, documents.c.deleting).where(documents.c.id == draft.document_id).with_for_update()
    row = (await connection.execute(lock)).one_or_none()
    if row is None or row.deleting:
        raise DocumentDeleting
    old = row.live_revision
    if old is not None and old > revision:
        return Published(dead=revision, graph_task=None)
    ours = delete(stale_points).where(stale_points.c.document_id == draft.document_id, stale_points.c.revision == revision)
    if (await connection.execute(ours)).rowcount == 0:
        raise LeaseLost("This write took so long that it was given up; it is done again.")
    before = None
    if old is not None:
        key = select(document_revisions.c.graph_key).where(
            document_revisions.c.document_id == draft.document_id, document_revisions.c.revision == old
        )
        before = (await connection.execute(key)).scalar_one_or_none()
        await connection.execute(insert(stale_points).values(document_id=draft.document_id, revision=old, knowledge_base_id=kb.id))
    await connection.execute(
        update(documents)
        .where(documents.c.id == draft.document_id)
        .values(
            live_revision=revision,
            content_hash=draft.content_hash,
            kind=draft.kind,
            title=draft.title,
            mime=draft.mime,
            metadata=draft.metadata,
            fetched_at=draft.fetched_at,
            updated_at=func.clock_timestamp(),
        )
    )
    task = None
    if kb.graph and before != draft.graph_key:
        task = await add_graph_task(connection, kb.id, "add", draft.document_id, revision=revision, key=draft.graph_key, job=job)
        if before is not None:
            await add_graph_task(connection, kb.id, "remove", draft.document_id, revision=old, key=before, job=job)
    return Published(dead=old, graph_task=task)


async def add_graph_task(
    connection: AsyncConnection, kb_id: UUID, operation: str, document: UUID, *, revision: int | None, key: str, job: JobFence | None
) -> int:
    """Ask the graph's writer to take a document in or out."""
    statement = (
        insert(graph_tasks)
        .values(
            knowledge_base_id=kb_id,
            operation=operation,
            document_id=document,
            revision=revision,
            graph_key=key,
            job_id=job.job_id if job else None,
        )
        .returning(graph_tasks.c.id)
    )
    return int((await connection.execute(statement)).scalar_one())


async def renew_failed_graph_task(
    connection: AsyncConnection, kb: KnowledgeBase, document: UUID, key: str, job: JobFence | None
) -> int | None:
    """Ask again for a document whose last graph step failed; None if there is nothing to ask for."""
    last = (
        select(graph_tasks.c.operation, graph_tasks.c.status, graph_tasks.c.revision)
        .where(graph_tasks.c.document_id == document, graph_tasks.c.graph_key == key)
        .order_by(graph_tasks.c.id.desc())
        .limit(1)
    )
    row = (await connection.execute(last)).one_or_none()
    if row is None or (row.operation, row.status) != ("add", "failed"):
        return None
    return await add_graph_task(connection, kb.id, "add", document, revision=row.revision, key=key, job=job)


async def remove_rows(connection: AsyncConnection, document: UUID, revisions: Sequence[int]) -> list[str]:
    """Remove revisions with their chunks, but not the notes about their points; returns the hashes of what was embedded."""
    if not revisions:
        return []
    gone = delete(chunks).where(chunks.c.document_id == document, chunks.c.revision.in_(revisions)).returning(chunks.c.embed_hash)
    hashes = set((await connection.execute(gone)).scalars())
    await connection.execute(
        delete(document_revisions).where(document_revisions.c.document_id == document, document_revisions.c.revision.in_(revisions))
    )
    return sorted(hashes)


async def forget_points(connection: AsyncConnection, removed: Sequence[tuple[UUID, int]]) -> None:
    """Take back the notes of points that are removed."""
    if removed:
        await connection.execute(delete(stale_points).where(tuple_(stale_points.c.document_id, stale_points.c.revision).in_(removed)))


async def _write(connection: AsyncConnection, draft: Draft, revision: int, job: JobFence | None) -> None:
    await connection.execute(
        insert(document_revisions).values(
            document_id=draft.document_id,
            revision=revision,
            job_id=job.job_id if job else None,
            fence=job.fence if job else None,
            content_hash=draft.content_hash,
            title=draft.title,
            mime=draft.mime,
            text=draft.text,
            bytes=draft.bytes,
            pages=draft.pages,
            graph_key=draft.graph_key,
            metadata=draft.metadata,
            flags=list(draft.flags),
            fetched_at=draft.fetched_at,
        )
    )
    await connection.execute(
        insert(chunks),
        [
            {
                "document_id": draft.document_id,
                "revision": revision,
                "ordinal": piece.ordinal,
                "text": piece.text,
                "heading_path": list(piece.heading_path),
                "page": piece.page,
                "start": piece.start,
                "end": piece.end,
                "tokens": piece.tokens,
                "embed_hash": piece.embed_hash,
                "flags": list(flags),
            }
            for piece, flags in zip(draft.chunks, draft.chunk_flags, strict=True)
        ],
    )
