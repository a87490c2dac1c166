"""The rows a deletion hides, removes and leaves; every function works inside its caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database import tables as t
from shield.database.engine import database_errors
from shield.database.fence import JobFence
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.proof import Proof

_ENDED = ("completed", "failed", "cancelled")

# What the graph holds or was asked to take in for these documents, unless it was told already to let go of it. A step given up is
# asked for again by another job only, so that one job does not try for ever.
_LET_GO = text("""
    INSERT INTO graph_tasks (knowledge_base_id, operation, document_id, graph_key, job_id)
    SELECT :kb, 'remove', k.document_id, k.graph_key, :job
    FROM (
        SELECT document_id, graph_key FROM graph_members WHERE knowledge_base_id = :kb AND document_id = ANY(:documents)
        UNION
        SELECT document_id, graph_key FROM graph_tasks
        WHERE knowledge_base_id = :kb AND document_id = ANY(:documents) AND operation = 'add'
    ) k
    LEFT JOIN LATERAL (
        SELECT operation, status, job_id FROM graph_tasks g
        WHERE g.document_id = k.document_id AND g.graph_key = k.graph_key ORDER BY id DESC LIMIT 1
    ) last ON true
    WHERE last.operation IS DISTINCT FROM 'remove' OR (last.status = 'failed' AND last.job_id IS DISTINCT FROM :job)
    ORDER BY k.document_id, k.graph_key
""")

_UNUSED_VECTORS = text("""
    DELETE FROM embeddings e WHERE e.text_hash = ANY(:hashes) AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.embed_hash = e.text_hash)
""")


async def hide(connection: AsyncConnection, kb: KnowledgeBase, documents: Sequence[UUID], job: JobFence) -> Sequence[Any]:
    """Make documents invisible and ask the graph to let go of them; returns those that exist (id, next_revision)."""
    d = t.documents
    wanted = select(d.c.id, d.c.next_revision).where(d.c.knowledge_base_id == kb.id, d.c.id.in_(documents))
    found = (await connection.execute(wanted.order_by(d.c.id).with_for_update())).all()
    if found:
        ids = [row.id for row in found]
        await connection.execute(update(d).where(d.c.id.in_(ids)).values(deleting=True, live_revision=None, content_hash=None))
        await connection.execute(_LET_GO, {"kb": kb.id, "documents": ids, "job": job.job_id})
    return found


async def hidden(connection: AsyncConnection, kb: KnowledgeBase, *, limit: int, documents: Sequence[UUID] | None = None) -> Sequence[Any]:
    """Documents (id, source, next_revision) that are being deleted, the first or the first of these."""
    d = t.documents
    statement = (
        select(d.c.id, d.c.source, d.c.next_revision).where(d.c.knowledge_base_id == kb.id, d.c.deleting).order_by(d.c.id).limit(limit)
    )
    return (await connection.execute(statement if documents is None else statement.where(d.c.id.in_(documents)))).all()


async def own_graph_keys(connection: AsyncConnection, document: UUID, keys: set[str]) -> tuple[str, ...]:
    """Those of the keys that no other document has, in any base."""
    r = t.document_revisions
    others = select(r.c.graph_key).where(r.c.graph_key.in_(keys), r.c.document_id != document)
    return tuple(sorted(keys - set((await connection.execute(others)).scalars())))


async def uploads_of(connection: AsyncConnection, documents: Sequence[UUID]) -> list[UUID]:
    """The uploads that these documents were made from."""
    u, j = t.uploads, t.jobs
    writers = _writers(documents)
    ingests = select(j.c.id).where(j.c.kind == "ingest", j.c.status.in_(_ENDED), j.c.id.in_(writers))
    retried = select(j.c.retry_of).where(j.c.kind == "ingest", j.c.id.in_(writers), j.c.retry_of.is_not(None))
    return list((await connection.execute(select(u.c.id).where(u.c.job_id.in_(ingests) | u.c.job_id.in_(retried)))).scalars())


async def remove_what_hangs_on(
    connection: AsyncConnection, kb: KnowledgeBase, documents: Sequence[UUID], uploads: Sequence[UUID]
) -> list[str]:
    """Remove everything of these documents but their revisions and rows; returns the hashes of what was embedded."""
    c, r, e, m, p, j = t.chunks, t.document_revisions, t.extractions, t.graph_members, t.crawl_pages, t.jobs
    hashes = set((await connection.execute(delete(c).where(c.c.document_id.in_(documents)).returning(c.c.embed_hash))).scalars())
    await connection.execute(_UNUSED_VECTORS, {"hashes": sorted(hashes)})
    other = r.alias()
    keys = select(r.c.graph_key).where(
        r.c.document_id.in_(documents),
        ~exists().where(
            other.c.graph_key == r.c.graph_key,
            other.c.document_id.not_in(documents),
            other.c.document_id.in_(select(t.documents.c.id).where(t.documents.c.knowledge_base_id == kb.id)),
        ),
    )
    await connection.execute(delete(e).where(e.c.knowledge_base_id == kb.id, e.c.graph_key.in_(keys)))
    await connection.execute(delete(m).where(m.c.knowledge_base_id == kb.id, m.c.document_id.in_(documents)))
    await connection.execute(delete(t.graph_tasks).where(t.graph_tasks.c.document_id.in_(documents), t.graph_tasks.c.status != "pending"))
    await connection.execute(delete(t.stale_points).where(t.stale_points.c.document_id.in_(documents)))
    await connection.execute(delete(t.missing_points).where(t.missing_points.c.document_id.in_(documents)))
    if uploads:
        await connection.execute(delete(t.uploads).where(t.uploads.c.id.in_(uploads)))
    written = select(j.c.id).where(j.c.status.in_(_ENDED), j.c.id.in_(_writers(documents)))
    await connection.execute(update(j).where(j.c.id.in_(written), j.c.payload.is_not(None)).values(payload=None))
    sources = select(t.documents.c.source).where(t.documents.c.id.in_(documents))
    w = t.web_pages
    named = or_(w.c.document_id.in_(documents), w.c.url.in_(sources), w.c.final_url.in_(sources), w.c.canonical.in_(sources))
    await connection.execute(delete(w).where(w.c.knowledge_base_id == kb.id, named))
    ended = select(j.c.id).where(j.c.knowledge_base_id == kb.id, j.c.status.in_(_ENDED))
    pages = update(p).where(or_(p.c.url.in_(sources), p.c.final_url.in_(sources)), p.c.job_id.in_(ended))
    await connection.execute(pages.values(body=None, links=None))
    return sorted(hashes)


async def remove_documents(connection: AsyncConnection, proofs: Sequence[Proof], job: JobFence) -> None:
    """Remove the documents' last rows and store their proofs."""
    d, ids = t.documents, [proof.document_id for proof in proofs]
    await connection.execute(delete(t.document_revisions).where(t.document_revisions.c.document_id.in_(ids)))
    gone = await connection.execute(delete(d).where(d.c.id.in_(ids), d.c.deleting).returning(d.c.id, d.c.next_revision))
    numbers = {row.id: row.next_revision for row in gone}
    rows = [
        {"job_id": job.job_id, "next_revision": numbers.get(proof.document_id, 1), **stored_form(proof), "document_id": proof.document_id}
        for proof in proofs
    ]
    await connection.execute(upsert(t.deletion_proofs).on_conflict_do_nothing(), rows)


async def proofs_of(engine: AsyncEngine, job_id: UUID, document: UUID | None = None) -> list[Proof]:
    """The proofs that a job has stored, in order of document, or the one of a document."""
    p = t.deletion_proofs
    statement = select(p).where(p.c.job_id == job_id).order_by(p.c.document_id)
    with database_errors():
        async with engine.connect() as connection:
            rows = (await connection.execute(statement if document is None else statement.where(p.c.document_id == document))).all()
    return [Proof(row.document_id, row.sentences_checked, row.sentences_shared, row.hits, row.stores, row.seconds) for row in rows]


async def found_traces(connection: AsyncConnection, job_id: UUID) -> bool:
    """Whether a proof of a job, or of those that it is a retry of, found something."""
    jobs, proofs = t.jobs, t.deletion_proofs
    chain = select(jobs.c.id, jobs.c.retry_of).where(jobs.c.id == job_id).cte(recursive=True)
    chain = chain.union(select(jobs.c.id, jobs.c.retry_of).join(chain, jobs.c.id == chain.c.retry_of))
    found = exists().where(proofs.c.job_id.in_(select(chain.c.id)), proofs.c.hits > 0)
    return bool((await connection.execute(select(found))).scalar_one())


def stored_form(proof: Proof) -> dict[str, Any]:
    """A proof as its row holds it."""
    return {
        "sentences_checked": proof.sentences_checked,
        "sentences_shared": proof.sentences_shared,
        "hits": proof.hits,
        "stores": proof.stores,
        "seconds": proof.seconds,
    }


def _writers(documents: Sequence[UUID]) -> Any:
    """Ids of the jobs that wrote these documents."""
    r, o = t.document_revisions, t.job_outcomes
    wrote = select(r.c.job_id).where(r.c.document_id.in_(documents), r.c.job_id.is_not(None))
    return wrote.union(select(o.c.job_id).where(o.c.document_id.in_(documents)))
