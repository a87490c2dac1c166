"""Keeping a document whose source did not change, without looking at its content again.

The caller knows that the source is as it was when it gave this revision under the same recipe. What remains is what `Library.put`
does for unchanged content: note that it was seen, and ask again for a graph step that had failed.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.fence import JobFence, require_fence
from shield.database.tables import chunks, documents
from shield.knowledge import revisions
from shield.knowledge.chunking import CHUNKER
from shield.knowledge.model import KnowledgeBase, Stored
from shield.knowledge.untrusted import CLEANER


def recipe(kb: KnowledgeBase, converter: str, metadata: dict[str, object]) -> str:
    """A hash of all that decides, besides the source itself, what a document of this base becomes.

    Args:
        kb: the base.
        converter: everything that may change what bytes are converted to.
        metadata: what is stored with the document.
    """
    whole = json.dumps([CLEANER, CHUNKER, converter, *kb.founded_on, metadata], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()


async def keep(
    engine: AsyncEngine, kb: KnowledgeBase, document: UUID, revision: int, *, fetched_at: datetime, job: JobFence
) -> Stored | None:
    """Keep a document in the revision that is live; None, and nothing done, if another one is, or none.

    `changed` is True if this very job stored it, before it was cut off.

    Raises:
        LeaseLost: another worker runs this job now.
    """
    with database_errors():
        async with engine.begin() as connection:
            row = await revisions.current(connection, document)
            if row is None or row.deleting or row.live_revision != revision:
                return None
            newest = func.greatest(documents.c.fetched_at, fetched_at)
            await connection.execute(update(documents).where(documents.c.id == document).values(fetched_at=newest))
            mine = (chunks.c.document_id == document, chunks.c.revision == revision)
            count = (await connection.execute(select(func.count()).where(*mine))).scalar_one()
            task = await revisions.renew_failed_graph_task(connection, kb, document, row.graph_key, job) if kb.graph else None
            await require_fence(connection, job.job_id, job.fence)
    return Stored(document, revision, changed=row.job_id == job.job_id, chunks=count, graph_task=task)
