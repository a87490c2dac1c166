"""Questions to the graph, answered by one read-only process for all knowledge bases; and the graph's fingerprint.

LightRAG retrieves without a model: keywords come by rule (`offline.keywords`), the question's vector from this process. What it
finds is cut to what is live: a chunk whose text no live document holds is dropped, and so is an entity or a relation if any of the
texts it was merged from is not live any more. It comes back when the writer has taken the dead text out, moments later. So text
of a deleted document is not shown, even while its removal waits. Limit: of something found in more than 300 chunks LightRAG keeps
the first 300 sources, and only their descriptions.

A knowledge base without a graph answers with nothing, and no process is started for it. A reader that dies or takes longer than
`graph.query` is killed and `DependencyUnavailable` says so; the next question starts a new one. Start about 3 s, then about 10 to
60 ms a question; the process ends after `graph.idle`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.errors import DependencyMisconfigured, DependencyUnavailable, from_code
from shield.knowledge.graph.child import Options
from shield.knowledge.graph.model import Entity, GraphAnswer, GraphChunk, GraphFingerprint, GraphMode, Relation, workspace
from shield.knowledge.graph.offline import SEPARATOR
from shield.knowledge.graph.process import GraphProcess, database_environment, table_model
from shield.knowledge.graph.wire import PeerFailed, PeerGone, pack
from shield.knowledge.graph.writer import lightrag_tables
from shield.knowledge.model import KnowledgeBase
from shield.settings import Settings

_CONNECTIONS = 4
SERVICE = "graph"


class QuestionEmbedder(Protocol):
    """What the reader needs of an embedder."""

    @property
    def model(self) -> str:
        """Name."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    async def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        """The unit vector of a question."""


class GraphReader:
    """Answers questions from the graphs of all knowledge bases."""

    def __init__(self, engine: AsyncEngine, dsn: str, embedder: QuestionEmbedder, settings: Settings) -> None:
        self._engine, self._dsn, self._embedder, self._settings = engine, dsn, embedder, settings
        graph = settings.graph
        self._options = Options(
            reader=True,
            model=table_model(embedder.model),
            dim=embedder.dim,
            llm=False,
            max_entities=graph.max_entities,
            max_relations=graph.max_relations,
        )
        self._process: GraphProcess | None = None
        self._starting = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._running = 0
        self._ending: set[asyncio.Task[None]] = set()

    async def query(
        self, kb: KnowledgeBase, text: str, *, mode: GraphMode = "mix", top_k: int | None = None, chunk_top_k: int | None = None
    ) -> GraphAnswer:
        """What the graph says about `text`; empty if there is no graph yet or nothing fits.

        Raises:
            QueryTooShort: fewer than three characters.
            DependencyMisconfigured: the graph was made with another embedding model than this installation's.
            DependencyUnavailable: the reader died or took too long; ask again, or do without the graph.
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        if kb.founded_on != (self._embedder.model, self._embedder.dim):  # a reindex moves passages, the graph keeps its vectors
            raise DependencyMisconfigured(f"The graph of `{kb.name}` has vectors of {kb.founded_on[0]}.", service=SERVICE)
        with database_errors():
            async with self._engine.connect() as connection:
                if not await _has_graph(connection, kb):
                    return GraphAnswer()
        found = await self._ask(
            kb, text=text, mode=mode, top_k=top_k or self._settings.query.top_k, chunk_top_k=chunk_top_k or self._settings.query.chunk_top_k
        )
        with database_errors():
            async with self._engine.connect() as connection:
                return await _live(connection, kb, found)

    async def fingerprint(self, kb: KnowledgeBase) -> GraphFingerprint:
        """How many entities and relations, and a digest of them with their texts and descriptions; the same on every machine."""
        with database_errors():
            async with self._engine.connect() as connection:
                return await fingerprint(connection, kb)

    async def close(self) -> None:
        """End the process, if one is running."""
        if self._idle is not None:
            self._idle.cancel()
        if self._process is not None:
            process, self._process = self._process, None
            await process.stop()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _ask(self, kb: KnowledgeBase, **question: Any) -> dict[str, Any]:
        limit = self._settings.graph.query
        self._running += 1
        try:
            async with asyncio.timeout((self._settings.graph.start + limit).total_seconds()):
                process = await self._started()
                if not await process.call("open", limit, workspace=workspace(kb.id)):
                    return {}
                return dict(await process.call("query", limit, workspace=workspace(kb.id), **question))
        except PeerFailed as error:
            if error.code:
                raise from_code(error.code, error.message) from error
            raise DependencyUnavailable("The graph could not be asked.", service=SERVICE) from error
        except (PeerGone, TimeoutError) as error:
            raise DependencyUnavailable("The graph's reader is not available.", retry_after=1, service=SERVICE) from error
        finally:
            self._running -= 1
            self._rest()

    async def _started(self) -> GraphProcess:
        async with self._starting:
            if self._process is None or not self._process.alive:
                if self._process is not None:
                    dead, self._process = self._process, None
                    await dead.kill()
                session = {
                    "default_transaction_read_only": "on",
                    # An index is shared by all knowledge bases: go on until enough of this one's rows are found.
                    "hnsw.iterative_scan": "strict_order",
                    "statement_timeout": str(int(self._settings.graph.query.total_seconds() * 1000)),
                    "idle_in_transaction_session_timeout": "60000",
                    "application_name": "shield-graph-reader",
                }
                self._process = await GraphProcess.start(
                    {"embed": self._embed},
                    database_environment(self._dsn, session, _CONNECTIONS),
                    self._options,
                    self._settings.graph.start,
                )
            return self._process

    async def _embed(self, texts: list[str], query: bool = True) -> str:
        rows = [await self._embedder.embed_query(text) for text in texts]
        return pack(np.stack(rows))

    def _rest(self) -> None:
        """(Re)start the wait for idleness."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._settings.graph.idle.total_seconds(), self._stop_idle)

    def _stop_idle(self) -> None:
        if self._running or self._process is None:
            return
        process, self._process = self._process, None
        ending = asyncio.create_task(process.stop())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


async def fingerprint(connection: AsyncConnection, kb: KnowledgeBase) -> GraphFingerprint:
    """See `GraphReader.fingerprint`."""
    if "lightrag_graph_nodes" not in await lightrag_tables(connection):
        return GraphFingerprint(0, 0, sha256().hexdigest())
    nodes = await connection.execute(
        sa.text("SELECT id AS a, '' AS b, properties FROM lightrag_graph_nodes WHERE workspace = :ws ORDER BY id COLLATE \"C\""),
        {"ws": workspace(kb.id)},
    )
    edges = await connection.execute(
        sa.text(
            "SELECT src_id AS a, tgt_id AS b, properties FROM lightrag_graph_edges WHERE workspace = :ws"
            ' ORDER BY src_id COLLATE "C", tgt_id COLLATE "C"'
        ),
        {"ws": workspace(kb.id)},
    )
    digest = sha256()
    counts = [0, 0]
    for kind, rows in enumerate((nodes, edges)):
        for row in rows:
            counts[kind] += 1
            digest.update(json.dumps([kind, row.a, row.b, *_facts(row.properties)], ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return GraphFingerprint(counts[0], counts[1], digest.hexdigest())


def _facts(properties: dict[str, Any]) -> list[Any]:
    words = {word.strip() for word in str(properties.get("keywords") or "").split(",")}
    return [
        properties.get("entity_type"),
        sorted(words - {""}),
        sorted(set(str(properties.get("description") or "").split(SEPARATOR))),
        sorted(set(str(properties.get("source_id") or "").split(SEPARATOR))),
    ]


async def _has_graph(connection: AsyncConnection, kb: KnowledgeBase) -> bool:
    if "lightrag_doc_status" not in await lightrag_tables(connection):
        return False
    found = await connection.execute(
        sa.text("SELECT 1 FROM lightrag_doc_status WHERE workspace = :ws AND status = 'processed' LIMIT 1"), {"ws": workspace(kb.id)}
    )
    return found.first() is not None


async def _live(connection: AsyncConnection, kb: KnowledgeBase, found: dict[str, Any]) -> GraphAnswer:
    """What was found, without what holds text of documents that are not live."""
    chunks = [_parse(chunk) for chunk in found.get("chunks", [])]
    entities, relations = found.get("entities", []), found.get("relations", [])
    keys = {key for key, _ in chunks} | {key for row in (*entities, *relations) for key in _keys(row[-1])}
    rows = await connection.execute(
        sa.text(
            "SELECT DISTINCT r.graph_key FROM document_revisions r JOIN documents d ON d.id = r.document_id AND d.live_revision = r.revision"
            " WHERE d.knowledge_base_id = :kb AND r.graph_key = ANY(:keys)"
        ),
        {"kb": kb.id, "keys": sorted(keys)},
    )
    live = set(rows.scalars())
    is_live: Callable[[list[str]], bool] = lambda row: bool(row[-1]) and _keys(row[-1]) <= live  # noqa: E731  read beside its use
    kept = dict.fromkeys((key, ordinal) for key, ordinal in chunks if key in live)
    return GraphAnswer(
        chunks=tuple(GraphChunk(key, ordinal, rank) for rank, (key, ordinal) in enumerate(kept, 1)),
        entities=tuple(Entity(name, kind, _plain(text)) for name, kind, text, _ in filter(is_live, entities)),
        relations=tuple(Relation(min(a, b), max(a, b), words, _plain(text)) for a, b, words, text, _ in filter(is_live, relations)),
    )


def _parse(chunk: str) -> tuple[str, int]:
    """(graph key, ordinal) of LightRAG's `{key}-{part}-chunk-{ordinal}`."""
    document, _, ordinal = chunk.rpartition("-chunk-")
    return document.partition("-")[0], int(ordinal) if ordinal.isdecimal() else -1


def _keys(sources: str) -> set[str]:
    return {source.partition("-")[0] for source in sources.split(SEPARATOR) if source}


def _plain(descriptions: str) -> str:
    return " ".join(_joined(descriptions.split(SEPARATOR)))


def _joined(parts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))
