"""Rebuild and check: the index against PostgreSQL, which alone is true.

`begin` notes every live document as missing in every collection of the base; filling them in (`filling.py`) writes all points anew from
stored texts and cached vectors, and embeds only what is not cached. Ingest and searches go on beside it: a search finds what is there.
`check` counts what the index holds against what it should; `prune` removes points that belong to nothing, as a restored database leaves.

Cost of a check: one scan of each collection, and one small entry a document in memory.
"""

from __future__ import annotations

from collections.abc import Collection as AnyOf
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.fence import JobFence, require_fence
from shield.errors import UnknownKnowledgeBase
from shield.knowledge.collections import Collection, State, collection_of, note_all_missing, note_missing, spaces_of, spaces_to_change
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.vectors.port import SpaceKey, VectorIndex

_PART = 500
_LIVE_ROW = text("""
    INSERT INTO collections (knowledge_base_id, model, dim, state) VALUES (:kb, :model, :dim, 'live')
    ON CONFLICT (knowledge_base_id, model, dim) DO UPDATE SET state = 'live' RETURNING *, true AS written
""")
_CLAIM = text("UPDATE collections SET job_id = :job WHERE id = :id")
_EXPECTED = text("""
    SELECT d.id, d.live_revision, count(c.ordinal) AS chunks
    FROM documents d LEFT JOIN chunks c ON c.document_id = d.id AND c.revision = d.live_revision
    WHERE d.knowledge_base_id = :kb AND d.live_revision IS NOT NULL GROUP BY d.id
""")
_STILL = text("SELECT id, live_revision FROM documents WHERE id = ANY(:documents)")


@dataclass(frozen=True)
class Checked:
    """One collection against PostgreSQL, in points."""

    space: SpaceKey
    state: State
    expected: int
    present: int
    other: int
    """Points that no reader can meet: of revisions that are not live (yet, or any more), or of passages that do not exist."""
    incomplete: tuple[UUID, ...]
    """Documents that lack points."""

    @property
    def missing(self) -> int:
        """Points that should be there and are not."""
        return self.expected - self.present


class Rebuilder:
    """Restores and checks the vectors of knowledge bases."""

    def __init__(self, engine: AsyncEngine, vectors: VectorIndex) -> None:
        self._engine = engine
        self._vectors = vectors

    async def begin(self, kb: KnowledgeBase, job: JobFence, *, fresh: bool = False) -> list[Collection]:
        """Note everything as missing, once a job; returns the collections to fill, the live one first.

        `fresh` drops the live collection before, for an index whose files are broken: readers find nothing until it is filled.

        Raises:
            UnknownKnowledgeBase: the base is gone.
            LeaseLost: another worker runs this job now.
        """
        if fresh and not await self._begun(kb, job):
            await self._vectors.drop(SpaceKey(kb.id, kb.embedding_model, kb.embedding_dim))
        with database_errors():
            async with self._engine.begin() as connection:
                spaces = await spaces_to_change(connection, kb.id)
                if spaces is None:
                    raise UnknownKnowledgeBase
                names = {"kb": kb.id, "model": spaces.live.model, "dim": spaces.live.dim}
                live = collection_of((await connection.execute(_LIVE_ROW, names)).one())
                others = [other for other in spaces.others if other.id != live.id and other.written]
                if live.job_id != job.job_id:
                    await connection.execute(_CLAIM, {"id": live.id, "job": job.job_id})
                    for collection in (live, *others):
                        await note_all_missing(connection, collection)
                await require_fence(connection, job.job_id, job.fence)
        return [live, *(other for other in others if other.state is not State.SHADOW)]  # a shadow is filled by its own job

    async def note_incomplete(self, kb: KnowledgeBase) -> int:
        """Note what a check finds missing in the live collection; returns how many documents."""
        live = (await self.check(kb))[0]
        with database_errors():
            async with self._engine.begin() as connection:
                spaces = await spaces_to_change(connection, kb.id)
                row = next((other for other in spaces.others if other.space == live.space), None) if spaces else None
                for document in live.incomplete if row else ():
                    await note_missing(connection, [row] if row else [], document)
        return len(live.incomplete)

    async def prune(self, kb: KnowledgeBase) -> int:
        """Remove the points of live revisions for passages that do not exist; returns how many."""
        removed = 0
        for space, _ in await self._places(kb):
            expected = await self._expected(kb)
            surplus: list[UUID] = []
            async for key, payload in self._vectors.scan(space):
                revision, chunks = expected.get(UUID(str(payload["document"])), (None, 0))
                if payload["revision"] == revision and int(str(payload["ordinal"])) >= chunks:
                    surplus.append(key)
            for start in range(0, len(surplus), _PART):
                await self._vectors.delete_points(space, surplus[start : start + _PART])
            removed += len(surplus)
        return removed

    async def check(self, kb: KnowledgeBase) -> list[Checked]:
        """Each collection of the base against PostgreSQL, the live one first; documents that change meanwhile are not blamed."""
        return [await self._check(kb, space, state) for space, state in await self._places(kb)]

    async def _places(self, kb: KnowledgeBase) -> list[tuple[SpaceKey, State]]:
        with database_errors():
            async with self._engine.connect() as connection:
                spaces = await spaces_of(connection, kb.id)
        if spaces is None:
            raise UnknownKnowledgeBase
        return [(spaces.live, State.LIVE), *((other.space, other.state) for other in spaces.others)]

    async def _check(self, kb: KnowledgeBase, space: SpaceKey, state: State) -> Checked:
        expected = await self._expected(kb)
        present = dict.fromkeys(expected, 0)
        other = 0
        async for _, payload in self._vectors.scan(space):
            document = UUID(str(payload["document"]))
            revision, chunks = expected.get(document, (None, 0))
            if payload["revision"] == revision and int(str(payload["ordinal"])) < chunks:
                present[document] += 1
            else:
                other += 1
        suspects = {document: revision for document, (revision, chunks) in expected.items() if present[document] < chunks}
        incomplete = await self._still_live(suspects)
        for document in suspects.keys() - incomplete:
            present[document] = expected[document][1]
        return Checked(
            space=space,
            state=state,
            expected=sum(chunks for _, chunks in expected.values()),
            present=sum(present.values()),
            other=other,
            incomplete=tuple(sorted(incomplete)),
        )

    async def _expected(self, kb: KnowledgeBase) -> dict[UUID, tuple[int, int]]:
        """The live revision and its number of passages, by document."""
        with database_errors():
            async with self._engine.connect() as connection:
                return {row.id: (row.live_revision, row.chunks) for row in await connection.execute(_EXPECTED, {"kb": kb.id})}

    async def _still_live(self, revisions: Mapping[UUID, int]) -> AnyOf[UUID]:
        """Those of the documents whose live revision is still this one."""
        documents, still = list(revisions), set[UUID]()
        for start in range(0, len(documents), _PART):
            with database_errors():
                async with self._engine.connect() as connection:
                    rows = await connection.execute(_STILL, {"documents": documents[start : start + _PART]})
                    still |= {row.id for row in rows if row.live_revision == revisions[row.id]}
        return still

    async def _begun(self, kb: KnowledgeBase, job: JobFence) -> bool:
        with database_errors():
            async with self._engine.connect() as connection:
                found = await connection.execute(
                    text("SELECT 1 FROM collections WHERE knowledge_base_id = :kb AND state = 'live' AND job_id = :job"),
                    {"kb": kb.id, "job": job.job_id},
                )
                return found.first() is not None
