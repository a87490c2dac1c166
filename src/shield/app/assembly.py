"""The parts of a process, put together from the bottom up; who builds them also takes them down, in reverse order.

`connect_core` makes what every process needs (database, index, embedder, metrics). On it stand the two halves: `answering`
(queries, intake, chores) and `working` (jobs and graph steps). `shield up` has both, an orchestrator the first, a worker the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shield import __version__
from shield.app import probes
from shield.app.observing import JobMetrics, step_observer
from shield.app.samples import SAMPLES
from shield.auth import LOCAL
from shield.database.engine import create_engine
from shield.database.migrate import check_version, upgrade, wait_for_schema
from shield.jobs.bridge import EventSender
from shield.jobs.events import JobEvents
from shield.jobs.hints import RedisHints
from shield.jobs.model import DOCUMENTS, FLEET, JobId, JobKind
from shield.jobs.registry import Workers
from shield.jobs.repository import JobRepository
from shield.knowledge.bases import Bases
from shield.knowledge.deletion import Deletion
from shield.knowledge.documents import Documents
from shield.knowledge.embedding import create_embedders
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.graph.reader import GraphReader
from shield.knowledge.graph.runner import GraphRunner
from shield.knowledge.library import Library
from shield.knowledge.llm import Llm, create_llm
from shield.knowledge.metering import Ledger, MeteredLlm
from shield.knowledge.search import Searcher
from shield.knowledge.sweep import Sweeper
from shield.knowledge.vectors import create_index
from shield.knowledge.vectors.port import VectorIndex
from shield.resilience import Breakers
from shield.service.cursors import Cursors, cursor_secret
from shield.service.parts import Parts
from shield.settings import Settings
from shield.sources.browser.find import NEED as BROWSER
from shield.sources.browser.renderer import ChromiumRenderer, create_renderer
from shield.sources.crawl import Crawler
from shield.sources.fetch import create_fetcher
from shield.sources.files.convert import Converter
from shield.sources.uploads import Uploads, create_uploads
from shield.telemetry.metrics import Metrics
from shield.worker.context import Handler
from shield.worker.documents import DocumentsHandler
from shield.worker.loop import Worker, new_worker_id
from shield.worker.memory import Ceiling
from shield.worker.pipeline import CrawlHandler, DeleteHandler, IngestHandler, Tools
from shield.worker.reindex import RebuildHandler, ReindexHandler, index_tools
from shield.worker.stages import Stages

log = structlog.get_logger(__name__)

Offers = Callable[[], Awaitable[frozenset[str]]]


@dataclass(frozen=True)
class Core:
    """What every process has."""

    settings: Settings
    dsn: str
    engine: AsyncEngine
    breakers: Breakers
    metrics: Metrics
    index: VectorIndex
    embedder: CachedEmbedder
    llm: Llm | None
    bases: Bases
    jobs: JobRepository
    events: JobEvents
    library: Library
    uploads: Uploads


@dataclass(frozen=True)
class Answering:
    """What answers callers."""

    core: Core
    parts: Parts
    sweeper: Sweeper


@dataclass(frozen=True)
class Working:
    """What runs jobs."""

    core: Core
    worker: Worker
    runner: GraphRunner
    converter: Converter
    offers: frozenset[str]
    """The needs it can meet."""
    sender: EventSender | None
    """Tells the orchestrators' watchers, in a fleet."""

    def work(self, stop: asyncio.Event) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs until `stop` is set, by name; events are sent until the worker has had its last word."""
        over = asyncio.Event()

        async def jobs() -> None:
            try:
                await self.worker.run(stop)
            finally:
                over.set()

        parts = {"worker": jobs(), "graph": self.runner.run(stop)}
        return parts if self.sender is None else {**parts, "events": self.sender.run(over)}

    async def offered(self) -> frozenset[str]:
        """The needs it can meet, as intake asks for them."""
        return self.offers


@dataclass
class Wake:
    """Tells whoever should look for work at once; the worker of this process, or nobody, until someone is named."""

    targets: list[Any] = field(default_factory=list)

    def __call__(self, job_id: JobId | None = None) -> None:
        for target in self.targets:
            target(job_id)


async def connect_core(settings: Settings, dsn: str, stack: AsyncExitStack, *, migrate: bool, metrics: Metrics | None = None) -> Core:
    """Connect, and migrate if this process owns the schema, or wait until it is there; what needs closing is pushed on `stack`.

    `metrics` are those of the process; by default new ones.
    """
    metrics = metrics or Metrics()
    engine = create_engine(dsn, settings.postgres)
    stack.push_async_callback(engine.dispose)
    if migrate:
        await upgrade(engine, settings=settings.postgres)
        await check_version(engine, __version__)
    else:
        limit = settings.postgres.schema_wait
        await wait_for_schema(engine, __version__, limit, report=lambda why: log.warning("schema.waiting", why=why))
    breakers = Breakers(settings.breaker, observed=metrics.dependency_call)
    metrics.circuits(breakers)
    index = create_index(settings, breakers)
    stack.push_async_callback(index.close)
    embedder = create_embedders(settings, breakers, engine, metrics.embedding_tokens)
    stack.push_async_callback(embedder.close)
    llm: Llm | None = create_llm(settings.llm, breakers)
    if llm is not None:
        stack.push_async_callback(llm.close)
        llm = MeteredLlm(llm, Ledger(engine), settings.llm, metrics.llm_tokens)
    bases = Bases(engine, embedder.model, embedder.dim)
    await bases.ensure_default(owner=LOCAL.name)
    return Core(
        settings=settings,
        dsn=dsn,
        engine=engine,
        breakers=breakers,
        metrics=metrics,
        index=index,
        embedder=embedder,
        llm=llm,
        bases=bases,
        jobs=JobRepository(engine, settings.jobs),
        events=JobEvents(),
        library=Library(engine, index, embedder),
        uploads=create_uploads(engine, settings),
    )


async def answering(core: Core, stack: AsyncExitStack, notify: Wake, *, offers: Offers | None = None) -> Answering:
    """The half that answers; `notify` is called with each accepted or cancelled job.

    `offers`: what those can do who will run the accepted jobs; by default the workers of the fleet.
    """
    settings = core.settings
    graph = GraphReader(core.engine, core.dsn, core.embedder, settings)
    stack.push_async_callback(graph.close)
    parts = Parts(
        settings=settings,
        engine=core.engine,
        jobs=core.jobs,
        events=core.events,
        bases=core.bases,
        library=core.library,
        search=Searcher(core.engine, core.index, core.embedder, settings.query, settings.library),
        documents=Documents(core.engine),
        vectors=core.index,
        uploads=core.uploads,
        cursors=Cursors(await cursor_secret(core.engine), settings.query.cursor_ttl),
        graph=graph,
        embedder=core.embedder,
        llm=core.llm,
        probes=probes.of(core.engine, core.index, settings, core.breakers),
        offers=offers or Workers(core.engine, settings.jobs).offers,
        notify=notify,
    )
    return Answering(core, parts, Sweeper(core.engine, core.index, core.embedder, settings.library))


def working(core: Core, stack: AsyncExitStack, *, runner: str = FLEET, scratch: Path | None = None) -> Working:
    """The half that runs jobs of `runner`.

    `scratch` is a directory of this process alone; by default one in the data directory, which has one owner.
    """
    settings = core.settings
    graph = GraphRunner(core.engine, core.dsn, core.embedder, core.llm, settings, observer=step_observer(core.metrics))
    stack.push_async_callback(graph.close)
    converter = Converter(settings.file, scratch or settings.data_dir / "cache" / "convert", lanes=settings.worker.convert)
    stack.push_async_callback(converter.close)
    deletion = Deletion(
        core.engine, core.index, core.embedder, settings.data_dir, erase_upload=core.uploads.erase, settings=settings.library
    )
    tools = Tools(
        core.engine,
        core.jobs,
        core.bases,
        core.library,
        deletion,
        core.uploads,
        converter,
        core.metrics.document,
        Stages.of(settings.worker),
        core.metrics.crawl_page,
    )
    renderer = create_renderer(settings)
    if renderer is not None:
        stack.push_async_callback(renderer.close)
    offers = frozenset({DOCUMENTS}) if renderer is None else frozenset({DOCUMENTS, BROWSER})

    async def recycle() -> None:
        await converter.recycle()
        await graph.recycle()
        if renderer is not None:
            await renderer.recycle()

    # One process that also answers is not held up by what a conversion takes: its operator sees the whole of it.
    ceiling = Ceiling(int(settings.worker.memory) if settings.mode == "server" else 0, recycle, observed=core.metrics.memory)
    sender = EventSender(settings.redis) if settings.mode == "server" else None
    return Working(
        core,
        _worker(core, tools, runner=runner, renderer=renderer, offers=offers, ceiling=ceiling, sender=sender),
        graph,
        converter,
        offers,
        sender,
    )


def _worker(
    core: Core,
    tools: Tools,
    *,
    runner: str,
    renderer: ChromiumRenderer | None,
    offers: frozenset[str],
    ceiling: Ceiling,
    sender: EventSender | None,
) -> Worker:
    settings = core.settings
    fetcher = create_fetcher(settings)
    crawler = Crawler(tools.engine, fetcher, settings.crawl, renderer)
    by_principal = {}
    if runner == FLEET and settings.mode == "embedded":  # the samples are pages of this very server
        own_site = settings.egress.model_copy(update={"allow": (*settings.egress.allow, f"127.0.0.1/32:{settings.port}")})
        own_fetcher = create_fetcher(settings.model_copy(update={"egress": own_site}))
        by_principal[SAMPLES.name] = Crawler(tools.engine, own_fetcher, settings.crawl)

    indexing = index_tools(core.engine, core.index, core.embedder, core.bases, settings)
    handlers: dict[JobKind, Handler] = {
        JobKind.CRAWL: CrawlHandler(tools, crawler, by_principal),
        JobKind.INGEST: DocumentsHandler(tools, fetcher, IngestHandler(tools, fetcher), settings),
        JobKind.DELETE: DeleteHandler(tools),
        JobKind.REINDEX: ReindexHandler(indexing),
        JobKind.REBUILD: RebuildHandler(indexing),
    }
    worker_id = new_worker_id()
    hinted = sender is not None and runner == FLEET  # a pod's own job waits in no queue
    worker = Worker(
        core.jobs,
        handlers,
        settings.jobs,
        sender or core.events,
        worker_id=worker_id,
        runner=runner,
        offers=offers,
        observer=JobMetrics(core.metrics).observer,
        hints=RedisHints(settings.redis, settings.jobs, worker_id) if hinted else None,
        registry=Workers(core.engine, settings.jobs) if hinted else None,
        ceiling=ceiling,
    )
    core.metrics.worker(settings.jobs.slots, lambda: worker.busy)
    return worker
