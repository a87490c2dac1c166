"""Crawl jobs on real components, without a server around them: PostgreSQL, Qdrant Edge, the builtin model, the converter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import create_engine
from shield.jobs.events import JobEvents
from shield.jobs.model import Claim, DocumentOutcome, Job, JobKind, JobRequest, WorkerId
from shield.jobs.repository import JobRepository
from shield.knowledge.bases import Bases
from shield.knowledge.deletion import Deletion
from shield.knowledge.embedding.builtin import BuiltinEmbedder
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.fingerprint import fingerprint
from shield.knowledge.library import Library
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.vectors.edge import EdgeIndex
from shield.service.models import CrawlSpec
from shield.settings import FileSettings, PostgresSettings, Settings
from shield.sources.contents import PartStore
from shield.sources.crawl import Crawler
from shield.sources.egress import EgressGuard
from shield.sources.fetch import Fetcher
from shield.sources.files.convert import Converter
from shield.sources.model import Converted
from shield.sources.politeness import Politeness
from shield.sources.uploads import Uploads
from shield.worker.context import JobContext
from shield.worker.loop import Worker
from shield.worker.pipeline import CrawlHandler, Tools
from tests.integration.jobs.support import job_settings

ME = WorkerId("me")
UNHURRIED = job_settings(lease=60, heartbeat=20)
"""Leases that hold on a busy machine: nobody is killed here but by the tests themselves."""


class Counting(Converter):
    """The converter; it counts what it is asked for."""

    asked = 0

    async def extract_html(self, body: bytes, url: str, charset: str | None = None) -> Converted:
        self.asked += 1
        return await super().extract_html(body, url, charset)

    async def convert(self, content: bytes, filename: str, mime: str | None = None) -> Converted:
        self.asked += 1
        return await super().convert(content, filename, mime)


@dataclass
class Crawls:
    """A knowledge base, and crawls into it."""

    engine: AsyncEngine
    jobs: JobRepository
    base: KnowledgeBase
    tools: Tools
    converter: Counting
    vectors: EdgeIndex

    async def job(self, url: str, **spec: Any) -> Claim:
        """An accepted crawl, claimed."""
        stored = CrawlSpec(url=url, **spec).model_dump(exclude={"type"})
        request = JobRequest(JobKind.CRAWL, "ada", self.base.id, self.base.name, stored, uuid4().hex)
        job = await self.jobs.accept(request)
        claim = await self.jobs.claim(job.id, ME)
        assert claim is not None
        return claim

    def handler(self, settings: Settings, guard: EgressGuard | None = None) -> CrawlHandler:
        """What runs crawls."""
        fetcher = Fetcher(guard or EgressGuard(settings.egress), Politeness(settings.crawl), settings)
        return CrawlHandler(self.tools, Crawler(self.engine, fetcher, settings.crawl))

    async def run(self, claim: Claim, settings: Settings, guard: EgressGuard | None = None) -> Job | None:
        """Run a claimed crawl to its next resting place."""
        handlers = {JobKind.CRAWL: self.handler(settings, guard)}
        return await Worker(self.jobs, handlers, UNHURRIED, JobEvents()).run_one(claim)

    async def kill(self, claim: Claim, settings: Settings, guard: EgressGuard, when: Awaitable[None]) -> Claim:
        """Run a claimed crawl, stop it dead at a moment, and claim it for another worker."""
        run = asyncio.create_task(self.handler(settings, guard).run(JobContext(claim, self.jobs, JobEvents(), UNHURRIED)))
        await when
        assert not run.done()
        run.cancel()
        await asyncio.wait([run])
        return await self.again(claim)

    async def again(self, claim: Claim) -> Claim:
        """The claim of the next worker, after one that was killed."""
        lapsed = "UPDATE jobs SET lease_until = now() - interval '1 s', crashes = 0 WHERE id = :id"
        await self.sql(lapsed, id=claim.job.id)
        taken = await self.jobs.claim(claim.job.id, ME)
        assert taken is not None
        return taken

    async def outcomes(self, job: Job) -> list[DocumentOutcome]:
        """All of them, in order."""
        return list(await self.jobs.outcomes(job.id, limit=1000))

    async def table(self, job: Job, root: str) -> dict[str, str]:
        """What became of each address, such as `failed page.not_found`."""
        return {o.source.removeprefix(root): f"{o.status} {o.code or ''}".strip() for o in await self.outcomes(job)}

    async def sql(self, statement: str, **values: Any) -> list[Any]:
        async with self.engine.begin() as connection:
            result = await connection.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    async def sources(self) -> list[str]:
        """The live documents' addresses."""
        return [row[0] for row in await self.sql("SELECT source FROM documents WHERE live_revision IS NOT NULL ORDER BY source")]

    async def hash(self) -> str:
        return (await fingerprint(self.engine, self.vectors, self.base)).hash


@pytest.fixture(scope="module")
def model() -> Iterator[BuiltinEmbedder]:
    model = BuiltinEmbedder()
    yield model
    asyncio.run(model.close())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def converter() -> AsyncIterator[Counting]:
    async with Counting(FileSettings()) as converter:
        yield converter


@pytest_asyncio.fixture(loop_scope="module")
async def crawls(dsn: str, model: BuiltinEmbedder, converter: Counting, data_dir: Path) -> AsyncIterator[Crawls]:
    """Crawls into an empty base without a graph."""
    engine = create_engine(dsn, PostgresSettings())
    vectors, embedder = EdgeIndex(data_dir / "vectors"), CachedEmbedder(model, engine)
    bases, jobs = Bases(engine, embedder.model, embedder.dim), JobRepository(engine, UNHURRIED)
    base = await bases.ensure_default(owner="ada", graph=False)
    uploads = Uploads(engine, PartStore(engine, timedelta(hours=1)), FileSettings())
    deletion = Deletion(engine, vectors, embedder, data_dir)
    tools = Tools(engine, jobs, bases, Library(engine, vectors, embedder), deletion, uploads, converter, lambda _: None)
    converter.asked = 0
    yield Crawls(engine, jobs, base, tools, converter, vectors)
    await vectors.close()
    await engine.dispose()
