"""Documents as readers list and read them: the live revision only, in order of source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import chunks, document_revisions, documents
from shield.errors import UnknownDocument
from shield.knowledge.model import KnowledgeBase


@dataclass(frozen=True)
class Document:
    """A live document, without its text."""

    id: UUID
    source: str
    kind: str
    title: str
    mime: str
    revision: int
    chunks: int
    bytes: int
    pages: int | None
    metadata: dict[str, Any]
    fetched_at: datetime | None
    updated_at: datetime
    flags: tuple[str, ...]


@dataclass(frozen=True)
class DocumentName:
    """A document by its id and its source."""

    id: UUID
    source: str


@dataclass(frozen=True)
class DocumentPage:
    """A page of a listing; pass `next` as `after` to read on, None at the end."""

    documents: list[Document]
    total: int
    next: str | None


@dataclass(frozen=True)
class DocumentPart:
    """A piece of a document's canonical text; chunks' and citations' offsets refer to that text."""

    document: Document
    text: str
    offset: int
    next_offset: int | None


_FAR = 2**31 - 2  # PostgreSQL counts characters in 32 bits
_LIVE = documents.join(
    document_revisions,
    (document_revisions.c.document_id == documents.c.id) & (document_revisions.c.revision == documents.c.live_revision),
)
_CHUNKS = (
    select(func.count())
    .where(chunks.c.document_id == documents.c.id, chunks.c.revision == documents.c.live_revision)
    .correlate(documents)
    .scalar_subquery()
)
_COLUMNS = (
    documents.c.id,
    documents.c.source,
    documents.c.kind,
    documents.c.title,
    documents.c.mime,
    documents.c.live_revision,
    documents.c.metadata,
    documents.c.fetched_at,
    documents.c.updated_at,
    document_revisions.c.bytes,
    document_revisions.c.pages,
    document_revisions.c.flags,
    _CHUNKS.label("chunks"),
)


class Documents:
    """Reads documents."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def list(self, kb: KnowledgeBase, *, prefix: str | None = None, limit: int = 50, after: str | None = None) -> DocumentPage:
        """Up to `limit` documents whose source begins with `prefix` and sorts (by code point) behind `after`."""
        source = documents.c.source.collate("C")
        mine = [documents.c.knowledge_base_id == kb.id, documents.c.live_revision.is_not(None)]
        if prefix:
            mine.append(func.starts_with(documents.c.source, prefix))
        behind = [source > after] if after is not None else []
        with database_errors():
            async with self._engine.connect() as connection:
                total = (await connection.execute(select(func.count()).select_from(documents).where(*mine))).scalar_one()
                page = select(*_COLUMNS).select_from(_LIVE).where(*mine, *behind).order_by(source).limit(limit + 1)
                rows = (await connection.execute(page)).all()
        found = [_document(row) for row in rows[:limit]]
        return DocumentPage(found, total, found[-1].source if len(rows) > limit else None)

    async def get(self, kb: KnowledgeBase, document: UUID, *, offset: int = 0, length: int = 16_000) -> DocumentPart:
        """The text from `offset` on, at most `length` characters.

        Raises:
            UnknownDocument: the base has no such live document.
        """
        offset = min(offset, _FAR)
        piece = func.substr(document_revisions.c.text, offset + 1, length).label("piece")
        whole = func.length(document_revisions.c.text).label("whole")
        row = await self._one(kb, document, piece, whole)
        end = offset + len(row.piece)
        return DocumentPart(_document(row), row.piece, offset, end if end < row.whole else None)

    async def find(self, kb: KnowledgeBase, document: UUID) -> DocumentName:
        """A document that readers see, or that is being deleted (so that a deletion which failed can be asked for again).

        Raises:
            UnknownDocument: the base has none.
        """
        statement = select(documents.c.id, documents.c.source).where(
            documents.c.id == document,
            documents.c.knowledge_base_id == kb.id,
            documents.c.live_revision.is_not(None) | documents.c.deleting,
        )
        with database_errors():
            async with self._engine.connect() as connection:
                row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise UnknownDocument
        return DocumentName(row.id, row.source)

    async def _one(self, kb: KnowledgeBase, document: UUID, *more: Any) -> Any:
        statement = select(*_COLUMNS, *more).select_from(_LIVE).where(documents.c.id == document, documents.c.knowledge_base_id == kb.id)
        with database_errors():
            async with self._engine.connect() as connection:
                row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise UnknownDocument
        return row


def _document(row: Any) -> Document:
    return Document(
        id=row.id,
        source=row.source,
        kind=row.kind,
        title=row.title,
        mime=row.mime,
        revision=row.live_revision,
        chunks=row.chunks,
        bytes=row.bytes,
        pages=row.pages,
        metadata=row.metadata,
        fetched_at=row.fetched_at,
        updated_at=row.updated_at,
        flags=tuple(row.flags),
    )
