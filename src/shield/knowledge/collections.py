"""The vector collections of a knowledge base: the live one, and beside it those of a reindex.

A base names its live collection (model and dimension), which searches read. A reindex builds another one as `shadow`; it becomes `ready`,
then `live`, and the one before is `retired` for `library.rollback_window`. Every write goes to all of these, so flipping and rolling back
change one row and lose nothing.

The promise behind it: **whenever a document's revision goes live, each collection that is written either has its points or has a note in
`missing_points`.** A publishing writer holds the base's row in share mode, whoever adds, flips or retires a collection changes it; so a
writer has seen the new collection, or its document is among those that the new collection begins with as missing.
"""

from __future__ import annotations

from collections.abc import Collection as AnyOf
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.knowledge.vectors.port import SpaceKey


class State(StrEnum):
    """Where a collection stands."""

    SHADOW = "shadow"
    READY = "ready"
    LIVE = "live"
    RETIRED = "retired"
    FAILED = "failed"


@dataclass(frozen=True)
class Collection:
    """A collection beside or instead of the one a base was made with."""

    id: UUID
    space: SpaceKey
    state: State
    written: bool
    """Whether documents are still written to it; if not, it only waits to be dropped."""
    job_id: UUID | None = None
    report: dict[str, Any] = field(default_factory=dict)
    flipped_at: datetime | None = None
    keep_until: datetime | None = None
    missing: int = 0
    """Documents it may lack; only where it was counted."""


@dataclass(frozen=True)
class Spaces:
    """The collections of one base."""

    live: SpaceKey
    others: tuple[Collection, ...] = ()

    @property
    def written(self) -> tuple[Collection, ...]:
        """The others that documents are written to."""
        return tuple(other for other in self.others if other.written)

    @property
    def all(self) -> tuple[SpaceKey, ...]:
        """Every place where points of the base may lie."""
        return (self.live, *(other.space for other in self.others))


_LIVE = "SELECT id, embedding_model, embedding_dim FROM knowledge_bases WHERE id = :kb"
_COLUMNS = """c.id, c.knowledge_base_id, c.model, c.dim, c.state, c.job_id, c.report, c.flipped_at, c.keep_until,
    c.state IN ('shadow', 'ready', 'live') OR (c.state = 'retired' AND c.keep_until > now()) AS written"""
_ROWS = text(f"SELECT {_COLUMNS} FROM collections c WHERE c.knowledge_base_id = :kb ORDER BY c.created_at, c.id")  # noqa: S608  our own names
_COUNTED = text(
    f"SELECT {_COLUMNS}, (SELECT count(*) FROM missing_points m WHERE m.collection_id = c.id) AS missing"  # noqa: S608
    " FROM collections c WHERE c.knowledge_base_id = :kb ORDER BY c.created_at, c.id"
)
_LACKS = text(
    "INSERT INTO missing_points (collection_id, document_id) SELECT unnest(CAST(:collections AS uuid[])), :document ON CONFLICT DO NOTHING"
)
_LACKS_ALL = text("""
    INSERT INTO missing_points (collection_id, document_id)
    SELECT :collection, id FROM documents WHERE knowledge_base_id = :kb AND live_revision IS NOT NULL ON CONFLICT DO NOTHING
""")


async def spaces_of(connection: AsyncConnection, kb_id: UUID, *, share: bool = False) -> Spaces | None:
    """The collections of a base, also while it is being deleted; None if it is gone.

    `share` keeps them as they are until the transaction ends.
    """
    live = (await connection.execute(text(_LIVE + (" FOR SHARE" if share else "")), {"kb": kb_id})).one_or_none()
    if live is None:
        return None
    space = SpaceKey(live.id, live.embedding_model, live.embedding_dim)
    rows = await connection.execute(_ROWS, {"kb": kb_id})
    return Spaces(space, tuple(other for other in map(collection_of, rows) if other.space != space))


async def spaces_to_change(connection: AsyncConnection, kb_id: UUID) -> Spaces | None:
    """As `spaces_of`, but no document of the base goes live until the transaction ends. Counts what is missing."""
    live = (await connection.execute(text(_LIVE + " FOR NO KEY UPDATE"), {"kb": kb_id})).one_or_none()
    if live is None:
        return None
    rows = await connection.execute(_COUNTED, {"kb": kb_id})
    return Spaces(SpaceKey(live.id, live.embedding_model, live.embedding_dim), tuple(map(collection_of, rows)))


async def counted(connection: AsyncConnection, kb_id: UUID) -> list[Collection]:
    """All rows of a base, the live one's included, with what they lack."""
    return [collection_of(row) for row in await connection.execute(_COUNTED, {"kb": kb_id})]


async def note_missing(connection: AsyncConnection, collections: Iterable[Collection], document: UUID) -> None:
    """Say that a document's live revision is to be indexed in these collections."""
    ids = [collection.id for collection in collections]
    if ids:
        await connection.execute(_LACKS, {"collections": ids, "document": document})


async def note_all_missing(connection: AsyncConnection, collection: Collection) -> int:
    """Say so of every live document of the base; returns how many were not noted before."""
    values = {"collection": collection.id, "kb": collection.space.knowledge_base_id}
    return int((await connection.execute(_LACKS_ALL, values)).rowcount)


def beyond(spaces: Spaces, indexed: AnyOf[SpaceKey]) -> list[Collection]:
    """The written collections in which a revision is not indexed."""
    return [other for other in spaces.written if other.space not in indexed]


def collection_of(row: Any) -> Collection:
    """A row of `collections` with `written` and, if counted, `missing`."""
    return Collection(
        id=row.id,
        space=SpaceKey(row.knowledge_base_id, row.model, row.dim),
        state=State(row.state),
        written=row.written,
        job_id=row.job_id,
        report=row.report,
        flipped_at=row.flipped_at,
        keep_until=row.keep_until,
        missing=getattr(row, "missing", 0),
    )
