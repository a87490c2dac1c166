"""Everything in one process: what `shield up` runs, and what a command or a stdio client becomes when nobody else is there.

Starts bottom up (database, parts, servers), announces its address once it serves, and stops top down within three seconds: no
new request or job is begun, a running job is handed back to its row and goes on at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import structlog

from shield import __version__
from shield.app import samples
from shield.app.owner import Ownership, ServerInfo
from shield.auth import LOCAL
from shield.auth.local import is_loopback
from shield.database.embedded import EmbeddedPostgres
from shield.errors import ConfigInvalid, DatabaseUnavailable, ShieldError
from shield.service.local import LocalShield
from shield.service.parts import Parts
from shield.settings import Settings

if TYPE_CHECKING:
    import uvicorn

    from shield.app.assembly import Assembly

log = structlog.get_logger(__name__)

_STOP_LIMIT = 2.0  # seconds for requests and tasks to end by themselves
_WATCH = 1.0  # seconds between two looks at the database's process
_CHORES_EVERY = 20  # rounds of housekeeping between two sweeps
_RECONCILE_EVERY = 2880  # rounds between two full scans for vectors that no document owns: about twice a day


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

    async def _start(self) -> None:
        self._stack.callback(self._ownership.close)
        listener = _bind(self._settings.host, self._settings.port)
        self._stack.callback(listener.close)
        settings = self._settings.model_copy(update={"port": listener.getsockname()[1]})
        postgres = EmbeddedPostgres(settings.data_dir)
        starting = asyncio.create_task(asyncio.to_thread(postgres.start))
        self._stack.push_async_callback(asyncio.to_thread, postgres.stop)
        await asyncio.sleep(0)
        from shield.app.assembly import assemble  # about two seconds of imports, while PostgreSQL starts beside them

        await starting
        assembly = await assemble(settings, postgres.dsn, self._stack)
        self._run("warm-up", _warm_up(assembly.parts, self._stop))
        await asyncio.sleep(0)
        self.shield = LocalShield(assembly.parts)
        self.info = self._serve(settings, assembly, listener)
        self.shield.base_url = settings.public_url or self.info.url
        await assembly.parts.jobs.abandon_leases()  # the lock makes us the only worker: what an earlier life held goes on at once
        for name, work in assembly.work(self._stop).items():
            self._run(name, work)
        self._run("housekeeping", _housekeeping(assembly, self._stop))
        self._run("postgres", _keep_alive(postgres, self._stop))
        await self._serving()
        self._ownership.announce(self.info)
        log.info("server.ready", url=self.info.url, metrics=self.info.metrics_url)

    def _serve(self, settings: Settings, assembly: Assembly, listener: socket.socket) -> ServerInfo:
        import uvicorn

        from shield.api.app import create_app
        from shield.mcp.server import create_mcp, http_app
        from shield.telemetry.server import MetricsServer

        local = is_loopback(settings.host) and settings.public_url is None
        mcp = create_mcp(self.shield, assembly.metrics, settings, principal=lambda: LOCAL, local_caller=local)
        folder = samples.directory()
        app = create_app(self.shield, settings, assembly.metrics, http_app(mcp), samples=folder / "site" if folder else None)
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
        exporter = MetricsServer(assembly.metrics, settings.host, settings.metrics_port)
        self._stack.callback(exporter.close)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        metrics_url = f"http://{host}:{exporter.port}/metrics"
        return ServerInfo(url=f"http://{host}:{settings.port}", metrics_url=metrics_url, pid=os.getpid(), version=__version__)

    async def _serving(self) -> None:
        while self._server is not None and not self._server.started:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _close(self) -> None:
        self._stop.set()
        if self._server is not None:
            self._server.should_exit = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_LIMIT)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()


def _bind(host: str, port: int) -> socket.socket:
    """The listening socket, bound before anything heavy starts, so that a taken port is known at once."""
    # The protocol is named because asyncio sets TCP_NODELAY only then: 8 ms a call instead of 54.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or "not an address"
        raise ConfigInvalid(
            f"{host}:{port} cannot be bound ({reason}); set SHIELD_PORT to another port, or to 0 for a free one."
        ) from error
    return listener


async def _keep_alive(postgres: EmbeddedPostgres, stop: asyncio.Event) -> None:
    """Start the database again when it dies; meanwhile callers get 503 and jobs wait."""
    while not stop.is_set():
        if not await asyncio.to_thread(postgres.alive):
            log.error("postgres.died")
            try:
                await asyncio.to_thread(postgres.revive)
                log.warning("postgres.back")
            except DatabaseUnavailable:
                log.error("postgres.does_not_start")  # noqa: TRY400  the reason is in its own log; the next round tries again
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _WATCH)


async def _warm_up(parts: Parts, stop: asyncio.Event) -> None:
    """Load the embedding model beside the rest of the start, so that the first question does not wait for it."""
    with contextlib.suppress(ShieldError):  # who asks first will be told
        await parts.embedder.embed_query("shield")
    await stop.wait()  # the parts of a process end together


async def _housekeeping(assembly: Assembly, stop: asyncio.Event) -> None:
    """What has to be done now and then; a failure is logged and tried again next time."""
    parts, rounds = assembly.parts, 0
    while not stop.is_set():
        try:
            queue = await parts.jobs.stats()
            assembly.metrics.probed("postgres", up=True)
            assembly.metrics.queue({"pending": queue.pending, "processing": queue.processing, "parked": queue.parked}, queue.oldest_pending)
            if rounds % _CHORES_EVERY == 0:
                await parts.uploads.expire()
                await assembly.sweeper.sweep()
            if rounds % _RECONCILE_EVERY == _RECONCILE_EVERY - 1:
                for summary in await parts.bases.summaries():
                    await assembly.sweeper.reconcile(summary.base)
        except DatabaseUnavailable:
            assembly.metrics.probed("postgres", up=False)
        except Exception as error:  # noqa: BLE001 - the loop must outlive any single failure; it is logged and tried again
            log.warning("housekeeping.failed", error=type(error).__name__)
        rounds += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), parts.settings.jobs.lease.total_seconds() / 2)


def _server(config: uvicorn.Config) -> uvicorn.Server:
    """An HTTP server without signal handlers of its own: the process's entry point decides when to stop."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(config)
