"""The fingerprint of a knowledge base: one hash over all that readers can see.

Two machines that stored the same sources under the same settings get the same hash, however often one of them was killed on the way. So it
covers live documents (source, title, kind, type, metadata, content hash), their chunks (text, path, place, flags), which of those
chunks have a vector, and the graph's content; and no ids, revisions or times. A live chunk without its vector changes the hash; points that
no reader can meet do not, and are counted apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.knowledge.bases import space_of
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.vectors.port import VectorIndex

_CHUNKS = text("""
    SELECT d.id, d.source, d.title, d.kind, d.mime, d.metadata, d.content_hash, d.live_revision,
           c.ordinal, c.text, c.heading_path, c.page, c.start, c."end", c.flags
    FROM documents d JOIN chunks c ON c.document_id = d.id AND c.revision = d.live_revision
    WHERE d.knowledge_base_id = :kb
    ORDER BY d.source COLLATE "C", c.ordinal
""")


class GraphPart(Protocol):
    """What the graph adds; see `knowledge.graph`."""

    @property
    def entities(self) -> int:
        """How many."""

    @property
    def relations(self) -> int:
        """How many."""

    @property
    def digest(self) -> str:
        """Equal for equal content."""


@dataclass(frozen=True)
class Fingerprint:
    """The hash, and the numbers behind it."""

    hash: str
    documents: int
    chunks: int
    points: int
    dead_points: int
    """Points of revisions that are not live: garbage the sweeper removes, not part of the hash."""
    entities: int = 0
    relations: int = 0


async def fingerprint(
    engine: AsyncEngine,
    vectors: VectorIndex,
    kb: KnowledgeBase,
    graph: Callable[[KnowledgeBase], Awaitable[GraphPart]] | None = None,
) -> Fingerprint:
    """Hash a knowledge base; writes going on meanwhile make the result useless but do no harm."""
    points, dead = await _points(engine, vectors, kb)
    whole = hashlib.sha256()
    documents: set[UUID] = set()
    chunks = 0
    options = {"yield_per": 500}
    with database_errors():
        async with engine.connect() as connection, connection.stream(_CHUNKS, {"kb": kb.id}, execution_options=options) as result:
            async for row in result:
                if row.id not in documents:
                    documents.add(row.id)
                    _feed(whole, ["document", row.source, row.title, row.kind, row.mime, row.metadata, row.content_hash])
                chunks += 1
                place = [row.ordinal, row.text, row.heading_path, row.page, row.start, row.end, row.flags]
                _feed(whole, ["chunk", *place, (row.id, row.ordinal) in points])
    entities = relations = 0
    if graph is not None and kb.graph:
        part = await graph(kb)
        entities, relations = part.entities, part.relations
        _feed(whole, ["graph", entities, relations, part.digest])
    return Fingerprint(whole.hexdigest(), len(documents), chunks, len(points), dead, entities, relations)


async def _points(engine: AsyncEngine, vectors: VectorIndex, kb: KnowledgeBase) -> tuple[set[tuple[UUID, int]], int]:
    """The points of live revisions by (document, ordinal), and how many others there are."""
    live = text("SELECT id, live_revision FROM documents WHERE knowledge_base_id = :kb AND live_revision IS NOT NULL")
    with database_errors():
        async with engine.connect() as connection:
            revisions = {row.id: row.live_revision for row in await connection.execute(live, {"kb": kb.id})}
    points: set[tuple[UUID, int]] = set()
    dead = 0
    async for _, payload in vectors.scan(space_of(kb)):
        document = UUID(str(payload["document"]))
        if revisions.get(document) == payload["revision"]:
            points.add((document, int(str(payload["ordinal"]))))
        else:
            dead += 1
    return points, dead


def _feed(whole: Any, item: object) -> None:
    whole.update(json.dumps(item, sort_keys=True, ensure_ascii=False).encode())
    whole.update(b"\n")
