"""The parts of one process, put together from the bottom up; who builds them also takes them down, in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from shield import __version__
from shield.app import probes
from shield.app.samples import SAMPLES
from shield.auth import LOCAL
from shield.database.engine import create_engine
from shield.database.migrate import check_version, upgrade
from shield.jobs.events import JobEvents
from shield.jobs.model import Job, JobKind
from shield.jobs.repository import JobRepository
from shield.knowledge.bases import Bases
from shield.knowledge.deletion import Deletion
from shield.knowledge.documents import Documents
from shield.knowledge.embedding import create_embedder
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.graph.reader import GraphReader
from shield.knowledge.graph.runner import GraphRunner
from shield.knowledge.library import Library
from shield.knowledge.llm import create_llm
from shield.knowledge.search import Searcher
from shield.knowledge.sweep import Sweeper
from shield.knowledge.vectors import create_index
from shield.resilience import Breakers
from shield.service.cursors import Cursors, cursor_secret
from shield.service.parts import Parts
from shield.service.views import seconds_between
from shield.settings import Settings
from shield.sources.crawl import Crawler
from shield.sources.fetch import create_fetcher
from shield.sources.files.convert import Converter
from shield.sources.uploads import Uploads
from shield.telemetry.metrics import Metrics
from shield.worker.context import Handler
from shield.worker.loop import Worker
from shield.worker.pipeline import CrawlHandler, DeleteHandler, IngestHandler, Tools


@dataclass(frozen=True)
class Assembly:
    """Everything that runs or answers in one process."""

    parts: Parts
    worker: Worker
    runner: GraphRunner
    sweeper: Sweeper
    metrics: Metrics

    def work(self, stop: asyncio.Event) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs until `stop` is set, by name."""
        return {"worker": self.worker.run(stop), "graph": self.runner.run(stop)}


async def assemble(settings: Settings, dsn: str, stack: AsyncExitStack) -> Assembly:
    """Connect, migrate and build; everything that needs closing is pushed on `stack`."""
    engine = create_engine(dsn, settings.postgres)
    stack.push_async_callback(engine.dispose)
    await upgrade(engine)
    await check_version(engine, __version__)
    breakers = Breakers(settings.breaker)
    metrics = Metrics(breakers)
    index = create_index(settings, breakers)
    stack.push_async_callback(index.close)
    embedder = CachedEmbedder(create_embedder(settings.embedding, breakers), engine)
    stack.push_async_callback(embedder.close)
    llm = create_llm(settings.llm, breakers)
    if llm is not None:
        stack.push_async_callback(llm.close)
    graph = GraphReader(engine, dsn, embedder, settings)
    stack.push_async_callback(graph.close)
    runner = GraphRunner(engine, dsn, embedder, llm, settings)
    stack.push_async_callback(runner.close)
    bases = Bases(engine, embedder.model, embedder.dim)
    await bases.ensure_default(owner=LOCAL.name)
    jobs, events = JobRepository(engine, settings.jobs), JobEvents()
    library = Library(engine, index, embedder)
    uploads = Uploads(engine, settings.data_dir / "uploads", settings.file)
    converter = Converter(settings.file, settings.data_dir / "cache" / "convert")
    stack.push_async_callback(converter.close)
    deletion = Deletion(engine, index, embedder, settings.data_dir, erase_upload=uploads.erase, settings=settings.library)
    worker = _worker(settings, Tools(engine, jobs, bases, library, deletion, uploads, converter, metrics.document), jobs, events, metrics)
    parts = Parts(
        settings=settings,
        engine=engine,
        jobs=jobs,
        events=events,
        bases=bases,
        library=library,
        search=Searcher(engine, index, embedder, settings.query, settings.library),
        documents=Documents(engine),
        vectors=index,
        uploads=uploads,
        cursors=Cursors(await cursor_secret(engine), settings.query.cursor_ttl),
        graph=graph,
        embedder=embedder,
        llm=llm,
        probes=probes.of(engine, index, settings, breakers),
        notify=worker.notify,
    )
    return Assembly(parts, worker, runner, Sweeper(engine, index, embedder, settings.library), metrics)


def _worker(settings: Settings, tools: Tools, jobs: JobRepository, events: JobEvents, metrics: Metrics) -> Worker:
    fetcher = create_fetcher(settings)
    crawler = Crawler(tools.engine, fetcher, settings.crawl)
    own_site = settings.egress.model_copy(update={"allow": (*settings.egress.allow, f"127.0.0.1/32:{settings.port}")})
    sample_crawler = Crawler(tools.engine, create_fetcher(settings.model_copy(update={"egress": own_site})), settings.crawl)

    def ended(job: Job) -> None:
        metrics.job_finished(job.kind, job.status, seconds_between(job.started_at or job.created_at, job.finished_at) or 0.0, job.outcome)

    handlers: dict[JobKind, Handler] = {
        JobKind.CRAWL: CrawlHandler(tools, crawler, {SAMPLES.name: sample_crawler}),
        JobKind.INGEST: IngestHandler(tools, fetcher),
        JobKind.DELETE: DeleteHandler(tools),
    }
    return Worker(jobs, handlers, settings.jobs, events, ended=ended)
