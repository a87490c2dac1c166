"""Knowledge bases: made by name, never by a typo, and removed only when empty.

A base is bound to one embedding model and dimension when it is made; only a reindex (`reindex.py`) changes them. One that is being
deleted is invisible and takes no documents, but its name stays taken until it is gone. `default` exists from the first start and
cannot be removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import chunks, documents, graph_tasks, knowledge_bases
from shield.errors import (
    DependencyMisconfigured,
    KnowledgeBaseConflict,
    KnowledgeBaseDeleting,
    KnowledgeBaseExists,
    KnowledgeBaseNameInvalid,
    KnowledgeBaseProtected,
    UnknownKnowledgeBase,
)
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.vectors.port import SpaceKey

DEFAULT = "default"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_COLUMNS = tuple(column for column in knowledge_bases.c if column.name != "deleting")


@dataclass(frozen=True)
class BaseSummary:
    """A base with its numbers; documents and chunks are the live ones."""

    base: KnowledgeBase
    documents: int
    chunks: int
    graph_pending: int


def space_of(kb: KnowledgeBase) -> SpaceKey:
    """The vector collection of a base."""
    return SpaceKey(kb.id, kb.embedding_model, kb.embedding_dim)


def embedder_of(kb: KnowledgeBase, embedders: CachedEmbedder) -> CachedEmbedder:
    """The embedder of a base's live collection: vectors of two models must not meet.

    Raises:
        DependencyMisconfigured: none is configured for its model.
    """
    try:
        return embedders.of(kb.embedding_model, kb.embedding_dim)
    except DependencyMisconfigured as error:
        model = f"{kb.embedding_model} with {kb.embedding_dim} dimensions"
        raise DependencyMisconfigured(
            f"The knowledge base `{kb.name}` has vectors of {model}, for which no embedder is configured here.", service="embedding"
        ) from error


class Bases:
    """All knowledge bases of an installation; new ones get the embedding `model` and `dim`."""

    def __init__(self, engine: AsyncEngine, model: str, dim: int) -> None:
        self._engine = engine
        self._model = model
        self._dim = dim

    async def create(
        self, name: str, *, owner: str, description: str = "", graph: bool = True, embedding: tuple[str, int] | None = None
    ) -> KnowledgeBase:
        """Make a base, with vectors of this model and dimension, by default the installation's.

        Raises:
            KnowledgeBaseNameInvalid: not 1-40 lower-case letters, digits and inner hyphens.
            KnowledgeBaseExists: the name is taken, be it by a base that is being deleted.
        """
        if not _NAME.fullmatch(name):
            raise KnowledgeBaseNameInvalid
        model, dim = embedding or (self._model, self._dim)
        statement = (
            upsert(knowledge_bases)
            .values(name=name, description=description, graph=graph, embedding_model=model, embedding_dim=dim, owner=owner)
            .on_conflict_do_nothing()
            .returning(*_COLUMNS)
        )
        with database_errors():
            async with self._engine.begin() as connection:
                row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise KnowledgeBaseExists
        return _base(row)

    async def ensure_default(self, *, owner: str, graph: bool = True) -> KnowledgeBase:
        """The base `default`, made if it is missing."""
        try:
            return await self.get(DEFAULT)
        except UnknownKnowledgeBase:
            pass
        try:
            return await self.create(DEFAULT, owner=owner, graph=graph)
        except KnowledgeBaseExists:  # another process was quicker
            return await self.get(DEFAULT)

    async def owned(self, name: str, *, owner: str, description: str) -> KnowledgeBase | None:
        """The base of that name, which must be this owner's; its description becomes this one. None: there is no such base.

        Raises:
            KnowledgeBaseConflict: it is somebody else's.
            KnowledgeBaseDeleting: it is being deleted.
        """
        locked = select(*_COLUMNS, knowledge_bases.c.deleting).where(knowledge_bases.c.name == name).with_for_update(key_share=True)
        with database_errors():
            async with self._engine.begin() as connection:
                row = (await connection.execute(locked)).one_or_none()
                if row is None:
                    return None
                if row.owner != owner:
                    raise KnowledgeBaseConflict
                if row.deleting:
                    raise KnowledgeBaseDeleting
                if row.description != description:
                    change = update(knowledge_bases).where(knowledge_bases.c.id == row.id).values(description=description)
                    await connection.execute(change)
        return replace(_base(row), description=description)

    async def get(self, name: str) -> KnowledgeBase:
        """The base of that name.

        Raises:
            UnknownKnowledgeBase: there is none, or it is being deleted.
        """
        return await self._one(knowledge_bases.c.name == name, ~knowledge_bases.c.deleting)

    async def by_id(self, base_id: UUID, *, deleting: bool = False) -> KnowledgeBase:
        """The base of that id; `deleting=True` finds one that is being deleted too.

        Raises:
            UnknownKnowledgeBase: there is none.
        """
        conditions = () if deleting else (~knowledge_bases.c.deleting,)
        return await self._one(knowledge_bases.c.id == base_id, *conditions)

    async def summaries(self, name: str | None = None) -> list[BaseSummary]:
        """All bases with their numbers, or the one of that name, in order of name."""
        count_documents = (
            select(func.count()).where(documents.c.knowledge_base_id == knowledge_bases.c.id, documents.c.live_revision.is_not(None))
        ).scalar_subquery()
        live = (chunks.c.document_id == documents.c.id) & (chunks.c.revision == documents.c.live_revision)
        count_chunks = (
            select(func.count())
            .select_from(documents.join(chunks, live))
            .where(documents.c.knowledge_base_id == knowledge_bases.c.id)
            .correlate(knowledge_bases)
        ).scalar_subquery()
        count_tasks = (
            select(func.count()).where(graph_tasks.c.knowledge_base_id == knowledge_bases.c.id, graph_tasks.c.status == "pending")
        ).scalar_subquery()
        statement = (
            select(*_COLUMNS, count_documents.label("documents"), count_chunks.label("chunks"), count_tasks.label("pending"))
            .where(~knowledge_bases.c.deleting, *(() if name is None else (knowledge_bases.c.name == name,)))
            .order_by(knowledge_bases.c.name)
        )
        with database_errors():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(statement)).all()
        return [BaseSummary(_base(row), row.documents, row.chunks, row.pending) for row in rows]

    async def summary(self, name: str) -> BaseSummary:
        """One base with its numbers.

        Raises:
            UnknownKnowledgeBase: there is none.
        """
        found = await self.summaries(name)
        if not found:
            raise UnknownKnowledgeBase
        return found[0]

    def check_removable(self, kb: KnowledgeBase) -> None:
        """Pass unless the base is `default`.

        Raises:
            KnowledgeBaseProtected: it is.
        """
        if kb.name == DEFAULT:
            raise KnowledgeBaseProtected

    async def mark_deleting(self, kb: KnowledgeBase) -> None:
        """Make a base invisible and closed to new documents, for its deletion; doing it again changes nothing.

        Raises:
            KnowledgeBaseProtected: it is `default`.
        """
        self.check_removable(kb)
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(update(knowledge_bases).where(knowledge_bases.c.id == kb.id).values(deleting=True))

    async def remove(self, kb: KnowledgeBase) -> None:
        """Remove the row of a base that holds no documents; no error if it is gone.

        Raises:
            KnowledgeBaseProtected: it is `default`.
        """
        self.check_removable(kb)
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(delete(knowledge_bases).where(knowledge_bases.c.id == kb.id))

    async def _one(self, *conditions: Any) -> KnowledgeBase:
        with database_errors():
            async with self._engine.connect() as connection:
                row = (await connection.execute(select(*_COLUMNS).where(*conditions))).one_or_none()
        if row is None:
            raise UnknownKnowledgeBase
        return _base(row)


def _base(row: Any) -> KnowledgeBase:
    return KnowledgeBase(
        id=row.id,
        name=row.name,
        description=row.description,
        graph=row.graph,
        embedding_model=row.embedding_model,
        embedding_dim=row.embedding_dim,
        owner=row.owner,
        created_at=row.created_at,
        founding_model=row.founding_model or "",
        founding_dim=row.founding_dim or 0,
    )
