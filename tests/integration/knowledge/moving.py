"""A base that is moved between two embedding models of a peer, with the worker that runs its jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from shield.jobs.events import JobEvents
from shield.jobs.model import Claim, Job, JobKind, JobRequest, WorkerId
from shield.jobs.repository import JobRepository
from shield.knowledge.bases import Bases
from shield.knowledge.embedding.choice import Embedders
from shield.knowledge.embedding.providers import OpenAIEmbedder
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.rebuild import Checked
from shield.knowledge.sweep import Sweeper
from shield.knowledge.vectors.port import SpaceKey, VectorIndex
from shield.resilience import Breakers
from shield.settings import BreakerSettings, EmbeddingSettings, LibrarySettings, Settings
from shield.worker.context import Handler, JobContext
from shield.worker.loop import Worker
from shield.worker.reindex import IndexTools, RebuildHandler, ReindexHandler, index_tools
from tests.integration.jobs.support import job_settings
from tests.integration.knowledge.conftest import Desk
from tests.peers.embeddings import EmbeddingPeer, embedding_peer

JOBS = job_settings(lease=30, heartbeat=5)
OLD, NEW = "old-32", "new-48"
TOPICS = ("cooling pump", "main valve", "steam turbine", "oil filter")


def about(topic: str, edition: int = 1) -> str:
    return f"The {topic} of hall three is described in edition {edition} of the manual, which everybody has read."


@dataclass(frozen=True)
class Moving:
    """A desk on the old model, and what moves its base."""

    desk: Desk
    peer: EmbeddingPeer
    tools: IndexTools
    jobs: JobRepository
    settings: LibrarySettings

    @property
    def old(self) -> SpaceKey:
        return SpaceKey(self.desk.kb.id, OLD, 32)

    @property
    def new(self) -> SpaceKey:
        return SpaceKey(self.desk.kb.id, NEW, 48)

    @property
    def sweeper(self) -> Sweeper:
        return Sweeper(self.desk.engine, self.desk.vectors, self.desk.embedder, self.settings)

    async def base(self) -> KnowledgeBase:
        """The base as it is now."""
        return await self.desk.bases.by_id(self.desk.kb.id)

    async def stock(self) -> None:
        """One document a topic."""
        for topic in TOPICS:
            await self.desk.put(topic.replace(" ", "-"), f"# {topic}", about(topic))

    async def texts(self, query: str) -> list[str]:
        """What a search finds now, first passages first."""
        return [hit.text for hit in (await self.desk.search.search(await self.base(), query, limit=20)).hits]

    async def claim(self, kind: JobKind = JobKind.REINDEX, **spec: Any) -> Claim:
        """A claimed job; a reindex is to the new model unless the spec says otherwise."""
        given: dict[str, Any] = (
            {"model": NEW, "dim": 48, "flip": True, "questions": [], "min_overlap": None} if kind is JobKind.REINDEX else {"fresh": False}
        )
        kb = self.desk.kb
        request = JobRequest(kind, "local", kb.id, kb.name, given | spec, request_hash=f"{kind}{sorted(spec)}", share_live=False)
        claim = await self.jobs.claim((await self.jobs.accept(request)).id, WorkerId("me"))
        assert claim is not None
        return claim

    async def run(self, claim: Claim, tools: IndexTools | None = None) -> Job:
        """Run a claimed job with the real loop."""
        tools = tools or self.tools
        handlers: dict[JobKind, Handler] = {JobKind.REINDEX: ReindexHandler(tools), JobKind.REBUILD: RebuildHandler(tools)}
        job = await Worker(self.jobs, handlers, JOBS, JobEvents()).run_one(claim)
        assert job is not None
        return job

    async def reindex(self, **spec: Any) -> Job:
        return await self.run(await self.claim(**spec))

    async def rebuild(self, **spec: Any) -> Job:
        return await self.run(await self.claim(JobKind.REBUILD, **spec))

    async def cut_off(self, claim: Claim, tools: IndexTools) -> Claim:
        """Run a job until something stands for a kill, and claim it anew."""
        context = JobContext(claim, self.jobs, JobEvents(), JOBS)
        handler = ReindexHandler(tools) if claim.job.kind is JobKind.REINDEX else RebuildHandler(tools)
        try:
            await handler.run(context)
        except BaseException as error:  # noqa: BLE001  the kill itself
            assert type(error).__name__ == "Crash"  # noqa: PT017
        await self.jobs.abandon_leases()
        await self.desk.sql("UPDATE jobs SET status = 'pending', lease_until = NULL, available_at = now() WHERE id = :id", id=claim.job.id)
        again = await self.jobs.claim(claim.job.id, WorkerId("another"))
        assert again is not None
        return again

    async def states(self) -> dict[str, str]:
        """The state of each collection by its model."""
        return {item.space.model: item.state.value for item in await self.tools.reindexer.collections(self.desk.kb)}

    async def checked(self) -> dict[str, Checked]:
        """Each collection against PostgreSQL, by model."""
        return {item.space.model: item for item in await self.tools.rebuilder.check(await self.base())}

    def through(self, vectors: Any) -> Moving:
        """The same with something between it and its vector index."""
        tools = _tools(self.desk.engine, vectors, self.desk.embedder, self.desk.bases, self.settings)
        return replace(self, desk=self.desk.through(vectors), tools=tools)


@asynccontextmanager
async def moving(engine: AsyncEngine, vectors: VectorIndex, data_dir: Path, **library: Any) -> AsyncIterator[Moving]:
    """The base `default`, without a graph, on the old model."""
    breakers = Breakers(BreakerSettings(pause=timedelta(seconds=0.05)))
    settings = LibrarySettings.model_validate(library)
    async with embedding_peer() as peer:

        def of(model: str, service: str) -> OpenAIEmbedder:
            dim = int(model.rpartition("-")[2])
            return OpenAIEmbedder(
                EmbeddingSettings(provider="openai", model=model, dim=dim, base_url=peer.url, timeout=timedelta(seconds=5)),
                breakers,
                service,
            )

        embedders = Embedders([of(OLD, "embedding"), of(NEW, "shadow")], engine)
        bases = Bases(engine, embedders.model, embedders.dim)
        kb = await bases.ensure_default(owner="local", graph=False)
        desk = Desk(engine, vectors, embedders, bases, kb, data_dir)
        tools = _tools(engine, vectors, embedders, bases, settings)
        yield Moving(desk, peer, tools, JobRepository(engine, JOBS), settings)
        await embedders.close()


def _tools(engine: AsyncEngine, vectors: VectorIndex, embedders: Any, bases: Bases, library: LibrarySettings) -> IndexTools:
    return index_tools(engine, vectors, embedders, bases, Settings(library=library))
