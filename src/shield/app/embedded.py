"""Everything in one process: what `shield up` runs, and what a command or a stdio client becomes when nobody else is there.

Starts bottom up (database, index, model, worker, servers), announces its address once it serves, and stops top down within
three seconds: no new request or job is begun, a running job is handed back to its row and goes on at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import structlog

from shield import __version__
from shield.app import probes, samples
from shield.app.owner import Ownership, ServerInfo
from shield.auth import LOCAL
from shield.database.embedded import EmbeddedPostgres
from shield.database.engine import create_engine
from shield.database.migrate import check_version, upgrade
from shield.errors import ConfigInvalid
from shield.jobs.events import JobEvents
from shield.jobs.model import Job, JobKind
from shield.jobs.repository import JobRepository
from shield.knowledge.bases import Bases
from shield.knowledge.embedding import create_embedder
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.library import Library
from shield.knowledge.llm import create_llm
from shield.resilience import Breakers
from shield.service.cursors import Cursors, cursor_secret
from shield.service.local import LocalShield
from shield.service.parts import Parts
from shield.service.views import seconds_between
from shield.settings import Settings
from shield.telemetry.metrics import Metrics
from shield.telemetry.server import MetricsServer
from shield.worker.loop import Worker

if TYPE_CHECKING:
    import uvicorn

log = structlog.get_logger(__name__)

_STOP_LIMIT = 2.0  # seconds for requests and tasks to end by themselves


class EmbeddedApp:
    """The running process; use it as an async context manager."""

    shield: LocalShield
    info: ServerInfo

    def __init__(self, settings: Settings, ownership: Ownership) -> None:
        self._settings = settings
        self._ownership = ownership
        self._stack = AsyncExitStack()
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: uvicorn.Server | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._close()

    async def failed(self) -> None:
        """Return never, unless a part of the process dies; then raise what it died of."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise RuntimeError("a part of the server stopped by itself")

    # -- start --------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._stack.callback(self._ownership.close)
        listener = _bind(self._settings.host, self._settings.port)
        settings = self._settings.model_copy(update={"port": listener.getsockname()[1]})
        postgres = EmbeddedPostgres(settings.data_dir)
        await asyncio.to_thread(postgres.start)
        self._stack.push_async_callback(asyncio.to_thread, postgres.stop)
        await self._build(settings, postgres.dsn, listener)

    async def _build(self, settings: Settings, dsn: str, listener: socket.socket) -> None:
        from shield.knowledge.deletion import Deletion
        from shield.knowledge.documents import Documents
        from shield.knowledge.graph.reader import GraphReader
        from shield.knowledge.graph.runner import GraphRunner
        from shield.knowledge.search import Searcher
        from shield.knowledge.vectors.factory import create_index
        from shield.sources.crawl import Crawler
        from shield.sources.fetch import create_fetcher
        from shield.sources.files.convert import Converter
        from shield.sources.files.uploads import Uploads
        from shield.worker.pipeline import CrawlHandler, DeleteHandler, IngestHandler, Tools

        engine = create_engine(dsn, settings.postgres)
        self._stack.push_async_callback(engine.dispose)
        await upgrade(engine)
        await check_version(engine, __version__)
        breakers = Breakers(settings.breaker)
        metrics = Metrics(breakers)
        index = create_index(settings, breakers)
        self._stack.push_async_callback(index.close)
        embedder = CachedEmbedder(create_embedder(settings.embedding, breakers), engine)
        self._stack.push_async_callback(embedder.close)
        llm = create_llm(settings.llm, breakers)
        if llm is not None:
            self._stack.push_async_callback(llm.close)
        jobs, events = JobRepository(engine, settings.jobs), JobEvents()
        bases = Bases(engine, embedder.model, embedder.dim)
        await bases.ensure_default(owner=LOCAL.name)
        library = Library(engine, index, embedder)
        uploads = Uploads(engine, settings.data_dir / "uploads", settings.file)
        converter = Converter(settings.file)
        self._stack.push_async_callback(converter.close)
        reader = GraphReader(engine, dsn, embedder, llm, settings.graph)
        self._stack.push_async_callback(reader.close)
        search = Searcher(engine, index, embedder, settings.query, settings.library)
        fetcher = create_fetcher(settings)
        deletion = Deletion(engine, index, embedder, settings.data_dir)
        tools = Tools(engine, jobs, bases, library, deletion, uploads, converter)
        own_site = settings.egress.model_copy(update={"allow": (*settings.egress.allow, f"127.0.0.1/32:{settings.port}")})
        sample_crawler = Crawler(engine, create_fetcher(settings.model_copy(update={"egress": own_site})), settings.crawl)
        worker = Worker(
            jobs,
            {
                JobKind.CRAWL: CrawlHandler(tools, Crawler(engine, fetcher, settings.crawl), {samples.SAMPLES.name: sample_crawler}),
                JobKind.INGEST: IngestHandler(tools, fetcher),
                JobKind.DELETE: DeleteHandler(tools),
            },
            settings.jobs,
            events,
            ended=lambda job: _count(metrics, job),
        )
        parts = Parts(
            settings=settings,
            engine=engine,
            jobs=jobs,
            events=events,
            bases=bases,
            library=library,
            search=search,
            documents=Documents(engine),
            deletion=deletion,
            vectors=index,
            uploads=uploads,
            cursors=Cursors(await cursor_secret(engine), settings.query.cursor_ttl),
            graph=reader,
            embedder=embedder,
            llm=llm,
            probes=probes.of(engine, index, settings, breakers),
            notify=worker.notify,
        )
        self.shield = LocalShield(parts)
        self.info = self._serve(settings, metrics, listener)
        self.shield.base_url = settings.public_url or self.info.url
        await jobs.abandon_leases()  # the lock makes us the only worker: what an earlier life held can go on at once
        runner = GraphRunner(engine, dsn, embedder, llm, settings.graph)
        self._run("worker", worker.run(self._stop))
        self._run("graph", runner.run(self._stop))
        self._run("housekeeping", _housekeeping(parts, tools, metrics, self._stop))
        await self._started()
        self._ownership.announce(self.info)
        log.info("server.ready", url=self.info.url, metrics=self.info.metrics_url)

    def _serve(self, settings: Settings, metrics: Metrics, listener: socket.socket) -> ServerInfo:
        import os

        import uvicorn

        from shield.api.app import create_app
        from shield.auth.local import is_loopback
        from shield.mcp.server import create_mcp, http_app

        local = is_loopback(settings.host) and settings.public_url is None
        mcp = create_mcp(self.shield, metrics, settings, principal=lambda: LOCAL, local_caller=local)
        folder = samples.directory()
        app = create_app(self.shield, settings, metrics, http_app(mcp), samples=folder / "site" if folder else None)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=30,
            server_header=False,
            ws="none",
        )
        self._server = _server(config)
        self._run("http", self._server.serve(sockets=[listener]))
        exporter = MetricsServer(metrics, settings.host, settings.metrics_port)
        self._stack.callback(exporter.close)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return ServerInfo(
            url=f"http://{host}:{settings.port}", metrics_url=f"http://{host}:{exporter.port}/metrics", pid=os.getpid(), version=__version__
        )

    async def _started(self) -> None:
        while self._server is not None and not self._server.started:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    def _run(self, name: str, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    # -- stop ---------------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        self._stop.set()
        if self._server is not None:
            self._server.should_exit = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_LIMIT)
            for task in late:
                task.cancel()
            for task in self._tasks:
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        await self._stack.aclose()


def _bind(host: str, port: int) -> socket.socket:
    """The listening socket, bound before anything heavy starts, so that a taken port is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigInvalid(
            f"{host}:{port} cannot be bound ({error.strerror}); set SHIELD_PORT to another port, or to 0 for a free one."
        ) from error
    listener.set_inheritable(False)
    return listener


def _count(metrics: Metrics, job: Job) -> None:
    metrics.job_finished(job.kind, job.status, seconds_between(job.started_at or job.created_at, job.finished_at) or 0.0, job.outcome)


async def _housekeeping(parts: Parts, tools: Any, metrics: Metrics, stop: asyncio.Event) -> None:
    """What has to be done now and then; a failure is logged and tried again next time."""
    chores: tuple[Callable[[], Awaitable[Any]], ...] = (parts.uploads.expire, tools.library.sweep)
    rounds = 0
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), parts.settings.jobs.lease.total_seconds() / 2)
            return
        rounds += 1
        try:
            queue = await parts.jobs.stats()
            metrics.queue({"pending": queue.pending, "processing": queue.processing, "parked": queue.parked}, queue.oldest_pending)
            if rounds % 20 == 0:
                for chore in chores:
                    await chore()
        except Exception as error:  # noqa: BLE001 - the loop must outlive any single failure; it is logged and tried again
            log.warning("housekeeping.failed", error=type(error).__name__)


def _server(config: uvicorn.Config) -> uvicorn.Server:
    """An HTTP server without signal handlers of its own: the process's entry point decides when to stop."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(config)
