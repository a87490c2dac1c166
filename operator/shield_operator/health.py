"""Health and metrics over HTTP.

`/healthz` fails only if the event loop itself is late: nothing outside this process (a quiet cluster, an API server or an orchestrator that is
away) can make it fail, so none of these makes the kubelet restart it. `/readyz` says that the caches hold what a fresh list saw, and whether this
replica leads; a standby is as ready as a leader. `/metrics` has a port of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shield_operator.metrics import Metrics


class Lag:
    """How late the event loop is."""

    def __init__(self, metrics: Metrics, *, poll: float, limit: float) -> None:
        self._metrics = metrics
        self._poll = poll
        self._limit = limit
        self._last = 0.0

    @property
    def late(self) -> bool:
        """Later than the limit at the last look."""
        return self._last > self._limit

    async def measure(self) -> None:
        """Look again and again, until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            before = clock()
            await asyncio.sleep(self._poll)
            self._last = max(0.0, clock() - before - self._poll)
            self._metrics.loop_lag.set(self._last)


def health_app(lag: Lag, *, synced: Callable[[], bool], leading: Callable[[], bool]) -> web.Application:
    """`/healthz` and `/readyz`."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"late": lag.late}, status=503 if lag.late else 200)

    async def readyz(_: web.Request) -> web.Response:
        state = {"synced": synced(), "leading": leading()}
        return web.json_response(state, status=200 if state["synced"] else 503)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def metrics_app(metrics: Metrics) -> web.Application:
    """`/metrics`."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", show)
    return app


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve the app inside the block; tells the port.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host or None, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
