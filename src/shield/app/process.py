"""A running process: its parts are started bottom up, its tasks run until it stops, and it stops top down in bounded time.

A server that stops takes no new connection, and lets requests end that it has begun, for `SHIELD_API_DRAIN`.

`EmbeddedApp` (everything in one process) and the processes of a fleet (`fleet.py`) are made of this. A subclass starts what it
consists of in `_start`, pushing on `_stack` whatever has to be closed, and hands long-lived work to `_run`. When a part ends by
itself, `failed` raises what it died of, and the entry point ends the process: a process that lost a part is worth nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from shield.errors import ConfigInvalid
from shield.settings import Settings

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from shield.telemetry.metrics import Metrics

_STOP_LIMIT = 2.0  # seconds that requests and tasks get to end by themselves, beyond what a worker needs to drain


class Process(ABC):
    """Use it as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: uvicorn.Server | None = None
        self._stop_limit = _STOP_LIMIT
        self._started = False

    async def __aenter__(self) -> Self:
        try:
            await self._start()
            self._started = True
        except BaseException:  # passes on: whatever ended the start, cancellation too, `__aexit__` will not be called
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

    @abstractmethod
    async def _start(self) -> None:
        """Start what the process consists of."""

    def _expose(self, metrics: Metrics) -> str:
        """Serve metrics, liveness and readiness from now on; returns the address of the metrics."""
        return expose(self._settings, metrics, self._stack, self._waits_for)

    def _waits_for(self) -> Sequence[str]:
        """What the process waits for before it is ready; called from another thread."""
        if self._stop.is_set():
            return ("stop",)
        return () if self._started else ("start",)

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` run until the process stops."""
        self._tasks.append(asyncio.create_task(work, name=name))

    def _serve(self, app: ASGIApp, listener: socket.socket) -> None:
        """Answer HTTP on `listener`."""
        import uvicorn

        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=math.ceil(self._settings.api.drain.total_seconds()),
            timeout_keep_alive=30,
            server_header=False,
            ws="none",
        )
        self._server = _server(config)
        self._run("http", self._server.serve(sockets=[listener]))

    async def _serving(self) -> None:
        """Return when HTTP is answered; raise what kept it from that."""
        while self._server is not None and not self._server.started:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    async def _close(self) -> None:
        self._stop.set()
        limit = self._stop_limit
        if self._server is not None:
            self._server.should_exit = True
            limit += self._settings.api.drain.total_seconds()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=limit)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()


def expose(settings: Settings, metrics: Metrics, stack: AsyncExitStack, waits_for: Callable[[], Sequence[str]]) -> str:
    """Serve metrics, liveness and readiness until `stack` is closed; returns the address of the metrics.

    `waits_for` says what the process waits for before it is ready; it is called from another thread.
    """
    from shield.telemetry.health import Health, Heartbeat
    from shield.telemetry.server import MetricsServer

    heartbeat = Heartbeat(settings.health.max_lag)
    heartbeat.start()
    stack.callback(heartbeat.stop)
    metrics.loop(heartbeat.lag)
    exporter = MetricsServer(metrics, settings.host, settings.metrics_port, Health(heartbeat, waits_for))
    stack.callback(exporter.close)
    return f"{address(settings.host, exporter.port)}/metrics"


def bind(host: str, port: int) -> socket.socket:
    """The listening socket, bound before anything heavy starts, so that a taken port is known at once.

    Raises:
        ConfigInvalid: the address cannot be bound.
    """
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


def address(host: str, port: int) -> str:
    """The URL of a server bound to `host` and `port`."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _server(config: uvicorn.Config) -> uvicorn.Server:
    """An HTTP server without signal handlers of its own: the process's entry point decides when to stop."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(config)
