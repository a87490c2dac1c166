"""A library on real components: PostgreSQL, Qdrant Edge and the builtin model, which is loaded once a test process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.fence import JobFence
from shield.knowledge.bases import Bases
from shield.knowledge.deletion import Deletion
from shield.knowledge.documents import Documents
from shield.knowledge.embedding.builtin import BuiltinEmbedder
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.fingerprint import Fingerprint, fingerprint
from shield.knowledge.library import Library
from shield.knowledge.model import KnowledgeBase, Stored
from shield.knowledge.search import Searcher
from shield.knowledge.sweep import Sweeper
from shield.knowledge.vectors.edge import EdgeIndex
from shield.knowledge.vectors.port import VectorIndex
from shield.settings import LibrarySettings, QuerySettings
from shield.sources.model import Block, BlockKind, Converted, Source


@pytest.fixture(scope="session")
def model() -> Iterator[BuiltinEmbedder]:
    """The builtin model."""
    model = BuiltinEmbedder()
    yield model
    asyncio.run(model.close())


@dataclass(frozen=True)
class Desk:
    """Everything a test of the library needs."""

    engine: AsyncEngine
    vectors: VectorIndex
    embedder: CachedEmbedder
    bases: Bases
    kb: KnowledgeBase
    data_dir: Path

    @property
    def library(self) -> Library:
        return Library(self.engine, self.vectors, self.embedder)

    @property
    def search(self) -> Searcher:
        return Searcher(self.engine, self.vectors, self.embedder, QuerySettings(), LibrarySettings())

    @property
    def documents(self) -> Documents:
        return Documents(self.engine)

    @property
    def deletion(self) -> Deletion:
        return Deletion(self.engine, self.vectors, self.embedder, self.data_dir)

    @property
    def sweeper(self) -> Sweeper:
        return Sweeper(self.engine, self.vectors, self.embedder, LibrarySettings())

    def impatient(self) -> Sweeper:
        """A sweeper that takes every write without a job for abandoned at once."""
        return Sweeper(self.engine, self.vectors, self.embedder, LibrarySettings(abandoned_after=timedelta(0)))

    def through(self, vectors: Any) -> Desk:
        """The same desk with something between it and its vector index."""
        return replace(self, vectors=vectors)

    async def put(self, uri: str, *paragraphs: str, job: JobFence | None = None, **more: Any) -> Stored:
        return await self.library.put(self.kb, a_source(uri, **more), a_text(*paragraphs), job=job)

    async def texts(self, query: str, limit: int = 10) -> list[str]:
        return [hit.text for hit in (await self.search.search(self.kb, query, limit=limit)).hits]

    async def fingerprint(self) -> Fingerprint:
        return await fingerprint(self.engine, self.vectors, self.kb)

    async def job(self, kind: str = "ingest", status: str = "processing", fence: int = 1, **columns: Any) -> JobFence:
        """A job's row, as a worker holds it."""
        ended = datetime.now(UTC) if status in {"completed", "failed", "cancelled"} else None
        values = {"kind": kind, "status": status, "fence": fence, "kb": self.kb.id, "ended": ended, "payload": columns.get("payload")}
        async with self.engine.begin() as connection:
            row = await connection.execute(
                text(
                    "INSERT INTO jobs (kind, status, fence, principal, knowledge_base_id, knowledge_base, request_hash, deadline_at, finished_at, payload)"
                    " VALUES (:kind, :status, :fence, 'local', :kb, 'default', 'x', now() + interval '1 day', :ended, :payload) RETURNING id"
                ),
                values,
            )
            return JobFence(row.scalar_one(), fence)

    async def sql(self, statement: str, **values: Any) -> list[Any]:
        async with self.engine.begin() as connection:
            result = await connection.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    async def count(self, table: str, document: UUID | None = None) -> int:
        where = "" if document is None else " WHERE document_id = :document"
        values = {} if document is None else {"document": document}
        return int((await self.sql(f"SELECT count(*) FROM {table}{where}", **values))[0][0])


@pytest.fixture
def data_dir(fast_dir: Path) -> Path:
    """In memory: every write of the index ends on what it lies on."""
    return fast_dir


@pytest.fixture
async def desk(engine: AsyncEngine, model: BuiltinEmbedder, data_dir: Path) -> AsyncIterator[Desk]:
    """A desk with the base `default`, which has a graph."""
    vectors = EdgeIndex(data_dir / "vectors")
    embedder = CachedEmbedder(model, engine)
    bases = Bases(engine, embedder.model, embedder.dim)
    yield Desk(engine, vectors, embedder, bases, await bases.ensure_default(owner="local"), data_dir)
    await vectors.close()


def a_source(uri: str, *, kind: str = "web", **more: Any) -> Source:
    return Source(uri=uri, kind=kind, **more)


def a_text(*paragraphs: str) -> Converted:
    """A document of paragraphs; `# ...` is a heading, `|...` a table."""

    def block(paragraph: str) -> Block:
        if paragraph.startswith("# "):
            return Block(BlockKind.HEADING, paragraph[2:], level=1)
        return Block(BlockKind.TABLE if paragraph.startswith("|") else BlockKind.PARAGRAPH, paragraph)

    return Converted(blocks=tuple(block(paragraph) for paragraph in paragraphs), converter="test 1")


class Crash(BaseException):
    """Stands for a kill: nothing may catch it."""


class Around:
    """The vector index itself; a test's subclass changes one thing."""

    def __init__(self, inner: VectorIndex) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Breaking(Around):
    """The vector index, with something happening at a named point."""

    def __init__(self, inner: VectorIndex, **at: Callable[[], Awaitable[None]]) -> None:
        super().__init__(inner)
        self._at = at

    async def _happens(self, point: str) -> None:
        if (action := self._at.get(point)) is not None:
            await action()

    async def upsert(self, *args: Any, **kw: Any) -> None:
        await self._happens("before_upsert")
        await self.inner.upsert(*args, **kw)
        await self._happens("after_upsert")

    async def delete_revision(self, *args: Any, **kw: Any) -> None:
        await self._happens("before_delete")
        await self.inner.delete_revision(*args, **kw)
        await self._happens("after_delete")
