"""A knowledge base with documents as the library leaves them, and a runner and a reader on it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.embedded import EmbeddedPostgres
from shield.database.engine import create_engine
from shield.knowledge.graph.reader import GraphReader
from shield.knowledge.graph.runner import GraphRunner
from shield.knowledge.model import KnowledgeBase, document_id
from shield.settings import PostgresSettings, Settings, load
from tests.conftest import _TEMPLATE, _admin, _dsn


class WordHashEmbedder:
    """Texts that share words are near: each word votes for a few dimensions. Deterministic and instant."""

    model, dim = "word-hash", 64

    def __init__(self) -> None:
        self.embedded = 0

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.embedded += len(texts)
        return np.stack([self._one(text) for text in texts])

    async def embed_once(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return await self.embed(texts)

    async def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        return self._one(text)

    async def close(self) -> None:
        return

    def _one(self, text: str) -> npt.NDArray[np.float32]:
        vector = np.full(self.dim, 1e-3, dtype=np.float32)
        for word in re.findall(r"\w+", text.lower()):
            digest = hashlib.sha256(word.encode()).digest()
            for index in digest[:4]:
                vector[index % self.dim] += 1
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


class Library:
    """Writes what `shield.knowledge.library` writes: documents, revisions, chunks and graph tasks."""

    def __init__(self, engine: AsyncEngine, kb: KnowledgeBase) -> None:
        self.engine, self.kb = engine, kb

    async def put(self, source: str, *chunks: str) -> str:
        """Store a document of these chunks; returns its graph key."""
        document = document_id(self.kb.id, source)
        key = hashlib.sha256("\x1f".join(chunks).encode()).hexdigest()
        async with self.engine.begin() as c:
            await c.execute(
                sa.text(
                    "INSERT INTO documents (id, knowledge_base_id, source, kind) VALUES (:id, :kb, :source, 'note') ON CONFLICT DO NOTHING"
                ),
                {"id": document, "kb": self.kb.id, "source": source},
            )
            revision = (
                await c.execute(
                    sa.text("UPDATE documents SET next_revision = next_revision + 1 WHERE id = :id RETURNING next_revision - 1"),
                    {"id": document},
                )
            ).scalar_one()
            await c.execute(
                sa.text(
                    "INSERT INTO document_revisions (document_id, revision, content_hash, text, graph_key)"
                    " VALUES (:id, :revision, :key, :text, :key)"
                ),
                {"id": document, "revision": revision, "key": key, "text": "\n\n".join(chunks)},
            )
            for ordinal, text in enumerate(chunks):
                await c.execute(
                    sa.text(
                        'INSERT INTO chunks (document_id, revision, ordinal, text, start, "end", tokens, embed_hash)'
                        " VALUES (:id, :revision, :ordinal, :text, 0, 1, 1, 'h')"
                    ),
                    {"id": document, "revision": revision, "ordinal": ordinal, "text": text},
                )
            await c.execute(
                sa.text("UPDATE documents SET live_revision = :revision WHERE id = :id"), {"id": document, "revision": revision}
            )
            await self.task(c, "add", document, revision, key)
        return key

    async def delete(self, source: str) -> None:
        """Take a document away, as the first step of a deletion does; its rows stay until the graph has let go."""
        document = document_id(self.kb.id, source)
        async with self.engine.begin() as c:
            row = (
                await c.execute(
                    sa.text(
                        "SELECT r.revision, r.graph_key FROM documents d JOIN document_revisions r"
                        " ON r.document_id = d.id AND r.revision = d.live_revision WHERE d.id = :id"
                    ),
                    {"id": document},
                )
            ).one()
            await c.execute(sa.text("UPDATE documents SET live_revision = NULL WHERE id = :id"), {"id": document})
            await self.task(c, "remove", document, row.revision, row.graph_key)

    async def task(self, c: AsyncConnection, operation: str, document: UUID, revision: int, key: str) -> None:
        await c.execute(
            sa.text(
                "INSERT INTO graph_tasks (knowledge_base_id, operation, document_id, revision, graph_key)"
                " VALUES (:kb, :operation, :document, :revision, :key)"
            ),
            {"kb": self.kb.id, "operation": operation, "document": document, "revision": revision, "key": key},
        )

    async def tasks(self) -> list[tuple[str, str, int, str | None]]:
        """(operation, status, errors, code) of all tasks in their order."""
        async with self.engine.connect() as c:
            rows = await c.execute(
                sa.text("SELECT operation, status, errors, code FROM graph_tasks WHERE knowledge_base_id = :kb ORDER BY id"),
                {"kb": self.kb.id},
            )
            return [(r.operation, r.status, r.errors, r.code) for r in rows]

    async def rows(self) -> dict[str, int]:
        """Rows of each of LightRAG's tables that belong to this base."""
        async with self.engine.connect() as c:
            names = await c.execute(sa.text("SELECT relname FROM pg_class WHERE relkind = 'r' AND starts_with(relname, 'lightrag_')"))
            return {
                name: (
                    await c.execute(sa.text(f'SELECT count(*) FROM "{name}" WHERE workspace = :ws'), {"ws": self.kb.id.hex})
                ).scalar_one()
                for name in sorted(names.scalars())
            }

    async def holding(self, text: str) -> list[str]:
        """Tables of the whole database that hold `text` anywhere in a row, except where documents are stored themselves."""
        async with self.engine.connect() as c:
            names = await c.execute(
                sa.text(
                    "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' AND nspname = 'public'"
                )
            )
            return [
                name
                for name in sorted(names.scalars())
                if name not in {"document_revisions", "chunks"}
                and (
                    await c.execute(sa.text(f'SELECT count(*) FROM "{name}" t WHERE position(:text IN t::text) > 0'), {"text": text})
                ).scalar_one()
            ]


NewLibrary = Callable[[], Awaitable[Library]]


@pytest.fixture(scope="module")
def embedder() -> WordHashEmbedder:
    return WordHashEmbedder()


@pytest.fixture(scope="module")
def dsn(postgres: EmbeddedPostgres) -> Iterator[str]:
    """One database a module: making LightRAG's tables takes a second."""
    name = f"t_{uuid4().hex[:12]}"
    _admin(postgres, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    yield _dsn(postgres, name)
    with contextlib.suppress(psycopg.Error):
        _admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(dsn: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(dsn, PostgresSettings())
    yield engine
    await engine.dispose()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Durations for tests; the lease is long enough for a busy machine."""
    return load(
        data_dir=tmp_path_factory.mktemp("data"),
        jobs={"relay": 0.05, "backoff_min": 0.01, "backoff_max": 0.02},
        graph={"idle": 30, "lease": 30},
    )


@pytest.fixture(scope="module")
def new_library(engine: AsyncEngine) -> NewLibrary:
    async def make() -> Library:
        name, embedder = f"kb-{uuid4().hex[:8]}", WordHashEmbedder()
        async with engine.begin() as c:
            row = (
                await c.execute(
                    sa.text(
                        "INSERT INTO knowledge_bases (name, embedding_model, embedding_dim, owner) VALUES (:name, :model, :dim, 'local')"
                        " RETURNING id, created_at"
                    ),
                    {"name": name, "model": embedder.model, "dim": embedder.dim},
                )
            ).one()
        return Library(engine, KnowledgeBase(row.id, name, "", True, embedder.model, embedder.dim, "local", row.created_at))

    return make


@pytest_asyncio.fixture(loop_scope="module")
async def library(new_library: NewLibrary) -> Library:
    return await new_library()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(engine: AsyncEngine, dsn: str, embedder: WordHashEmbedder, settings: Settings) -> AsyncIterator[GraphRunner]:
    runner = GraphRunner(engine, dsn, embedder, None, settings)
    yield runner
    await runner.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader(engine: AsyncEngine, dsn: str, embedder: WordHashEmbedder, settings: Settings) -> AsyncIterator[GraphReader]:
    reader = GraphReader(engine, dsn, embedder, settings)
    yield reader
    await reader.close()


async def drain(runner: GraphRunner, *, limit: float = 50) -> None:
    """Run batches until no task waits, those put off for a moment included."""
    async with asyncio.timeout(limit):
        while await runner.step() or await _waiting(runner):
            pass


async def _waiting(runner: GraphRunner) -> bool:
    async with runner._engine.connect() as c:
        await c.execute(sa.text("SELECT pg_sleep(0.01)"))
        return bool((await c.execute(sa.text("SELECT 1 FROM graph_tasks WHERE status = 'pending' LIMIT 1"))).scalar())
