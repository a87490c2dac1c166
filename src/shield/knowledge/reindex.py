"""Reindex: moving a knowledge base to another embedding model without a moment in which it answers nothing, or half.

A second collection is built as a shadow while the first goes on answering; from its first moment every new document is written to both
(`library.py`), and those from before are filled in (`filling.py`). When it holds all of them it is compared with the first on golden
questions. The flip is one transaction that changes the model the base names: a search reads that name once, so it uses one collection
or the other. The old one is still written for `library.rollback_window`; until then a rollback is the same flip backwards.

Documents are not touched: text, chunks, ids and `kb hash` stay as they are. The graph keeps the vectors it was made with.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.database.fence import JobFence, require_fence
from shield.errors import NothingToFlip, ReindexIncomplete, ReindexNotPossible, UnknownKnowledgeBase
from shield.knowledge.collections import Collection, Spaces, State, collection_of, counted, note_all_missing, spaces_to_change
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.vectors.port import SpaceKey
from shield.settings import LibrarySettings

_INSERT = text("""
    INSERT INTO collections (knowledge_base_id, model, dim, state, job_id) VALUES (:kb, :model, :dim, 'shadow', :job) RETURNING *, true AS written
""")
_TAKE = text("UPDATE collections SET state = :state, job_id = :job, keep_until = NULL WHERE id = :id RETURNING *, true AS written")
_GIVE_UP = text("UPDATE collections SET state = 'failed' WHERE id = :id")
_BUSY = text("SELECT 1 FROM jobs WHERE id = :owner AND id <> :job AND status IN ('pending', 'processing')")
_READY = text("UPDATE collections SET state = 'ready', report = CAST(:report AS jsonb) WHERE id = :id AND state IN ('shadow', 'ready')")
_FORGET_QUESTIONS = text("UPDATE jobs SET spec = spec - 'questions' WHERE id = :job")
_NAME = text("""
    UPDATE knowledge_bases SET embedding_model = :model, embedding_dim = :dim,
        founding_model = coalesce(founding_model, embedding_model), founding_dim = coalesce(founding_dim, embedding_dim)
    WHERE id = :kb
""")
_MAKE_LIVE = text("UPDATE collections SET state = 'live', flipped_at = clock_timestamp(), keep_until = NULL WHERE id = :id")
_RETIRE = text("""
    INSERT INTO collections (knowledge_base_id, model, dim, state, flipped_at, keep_until)
    VALUES (:kb, :model, :dim, 'retired', clock_timestamp(), now() + CAST(:keep AS interval))
    ON CONFLICT (knowledge_base_id, model, dim)
    DO UPDATE SET state = 'retired', flipped_at = excluded.flipped_at, keep_until = excluded.keep_until
""")


class Reindexer:
    """Moves knowledge bases between collections; each method is one transaction."""

    def __init__(self, engine: AsyncEngine, settings: LibrarySettings) -> None:
        self._engine = engine
        self._settings = settings

    async def collections(self, kb: KnowledgeBase) -> list[Collection]:
        """What the base has beside the collection it was made with, or instead of it; with what each lacks."""
        with database_errors():
            async with self._engine.connect() as connection:
                return await counted(connection, kb.id)

    async def check_possible(self, kb: KnowledgeBase, model: str, dim: int) -> None:
        """Pass if a reindex to that model may be asked for.

        Raises:
            ReindexNotPossible: the base is on that model already, or another reindex is under way.
        """
        if (kb.embedding_model, kb.embedding_dim) == (model, dim):
            raise ReindexNotPossible(f"The knowledge base uses {model} with {dim} dimensions already.")
        with database_errors():
            async with self._engine.connect() as connection:
                for other in await counted(connection, kb.id):
                    if other.state is State.SHADOW and other.space.model != model:
                        await _require_idle(connection, other, None)

    async def begin(self, kb: KnowledgeBase, model: str, dim: int, job: JobFence) -> Collection | None:
        """The collection to fill: made, or taken over from an earlier run; None if the base is on that model already.

        Raises:
            UnknownKnowledgeBase: the base is gone.
            ReindexNotPossible: another reindex of this base is under way.
            LeaseLost: another worker runs this job now.
        """
        with database_errors():
            async with self._engine.begin() as connection:
                spaces = await _to_change(connection, kb.id)
                target = SpaceKey(kb.id, model, dim)
                if spaces.live == target:
                    return None
                known = next((other for other in spaces.others if other.space == target), None)
                for other in spaces.others:
                    if other.state in (State.SHADOW, State.READY) and other.space != target:
                        await _require_idle(connection, other, job)
                        await connection.execute(_GIVE_UP, {"id": other.id})
                collection = await self._take(connection, target, known, job)
                await require_fence(connection, job.job_id, job.fence)
        return collection

    async def _take(self, connection: AsyncConnection, target: SpaceKey, known: Collection | None, job: JobFence) -> Collection:
        if known is None:
            values = {"kb": target.knowledge_base_id, "model": target.model, "dim": target.dim, "job": job.job_id}
            made = collection_of((await connection.execute(_INSERT, values)).one())
            await note_all_missing(connection, made)
            return made
        if known.state is State.SHADOW:
            await _require_idle(connection, known, job)
        # What was written all the time is complete but for its notes; what was not begins anew.
        state = State.READY if known.state in (State.READY, State.RETIRED) and known.written else State.SHADOW
        taken = collection_of((await connection.execute(_TAKE, {"id": known.id, "state": state, "job": job.job_id})).one())
        if not known.written:
            await note_all_missing(connection, taken)
        return taken

    async def ready(self, collection: Collection, report: dict[str, Any], job: JobFence) -> None:
        """Say that the collection holds every document, and how it compares; the request's questions are kept no longer.

        Raises:
            LeaseLost: another worker runs this job now.
        """
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(_READY, {"id": collection.id, "report": json.dumps(report)})
                await connection.execute(_FORGET_QUESTIONS, {"job": job.job_id})
                await require_fence(connection, job.job_id, job.fence)

    async def flip(self, kb: KnowledgeBase, job: JobFence | None = None) -> Collection:
        """Let the base answer from the collection that is ready; searches use it at once.

        Raises:
            NothingToFlip: none is ready.
            ReindexIncomplete: it still lacks documents.
            LeaseLost: another worker runs this job now.
        """
        with database_errors():
            async with self._engine.begin() as connection:
                spaces = await _to_change(connection, kb.id)
                ready = [other for other in spaces.others if other.state is State.READY]
                if not ready:
                    raise NothingToFlip("No reindex of this knowledge base is ready.")
                await self._change(connection, spaces, ready[-1])
                if job is not None:
                    await require_fence(connection, job.job_id, job.fence)
        return ready[-1]

    async def rollback(self, kb: KnowledgeBase) -> Collection:
        """Let the base answer from the collection that was retired last; the one it leaves is kept as long again.

        Raises:
            NothingToFlip: none is kept.
            ReindexIncomplete: it lacks documents that it could not take in meanwhile.
        """
        with database_errors():
            async with self._engine.begin() as connection:
                spaces = await _to_change(connection, kb.id)
                kept = [other for other in spaces.others if other.state is State.RETIRED and other.written]
                if not kept:
                    raise NothingToFlip("No earlier collection of this knowledge base is kept.")
                target = max(kept, key=lambda other: (other.flipped_at is not None, other.flipped_at))
                await self._change(connection, spaces, target)
        return target

    async def discard(self, kb: KnowledgeBase) -> int:
        """Give up all collections but the live one; nothing writes them any more, and the next sweep drops them. Returns how many.

        Raises:
            ReindexNotPossible: a job is building one; cancel it first.
        """
        with database_errors():
            async with self._engine.begin() as connection:
                spaces = await _to_change(connection, kb.id)
                others = [other for other in spaces.others if other.space != spaces.live]
                for other in others:
                    await _require_idle(connection, other, None)
                    await connection.execute(_GIVE_UP, {"id": other.id})
        return len(others)

    async def _change(self, connection: AsyncConnection, spaces: Spaces, target: Collection) -> None:
        if target.missing:
            raise ReindexIncomplete(f"The collection still lacks {target.missing} documents.", missing=target.missing)
        old = spaces.live
        names = {"kb": old.knowledge_base_id}
        await connection.execute(_NAME, {**names, "model": target.space.model, "dim": target.space.dim})
        await connection.execute(_MAKE_LIVE, {"id": target.id})
        await connection.execute(_RETIRE, {**names, "model": old.model, "dim": old.dim, "keep": self._settings.rollback_window})


async def _to_change(connection: AsyncConnection, kb_id: UUID) -> Spaces:
    spaces = await spaces_to_change(connection, kb_id)
    if spaces is None:
        raise UnknownKnowledgeBase
    return spaces


async def _require_idle(connection: AsyncConnection, collection: Collection, job: JobFence | None) -> None:
    """Pass unless another job that has not ended fills this collection."""
    owner = {"owner": collection.job_id, "job": job.job_id if job else UUID(int=0)}
    if collection.state is State.SHADOW and (await connection.execute(_BUSY, owner)).first() is not None:
        raise ReindexNotPossible(f"A reindex of this knowledge base to {collection.space.model} is under way.")
