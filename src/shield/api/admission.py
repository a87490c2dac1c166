"""Admission: a server that is asked for more than it can do refuses the surplus at once and answers the rest in time.

Without it every caller of an overloaded server waits until its own time-out, and nobody gets an answer. Two measures, each against
another bottleneck: at most `max_active` requests are worked on, and one that gets no turn within `turn` is refused (dependencies are
slow); and while the event loop lags behind by more than `max_lag` with more than a few requests inside, new ones are refused before they
cost anything (the processor is busy). Requests that only wait, for a job's end or its events, are counted apart: they cost nothing meanwhile. Liveness and readiness
are always answered.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from shield.errors import Overloaded
from shield.settings import ApiSettings

_ALWAYS = frozenset({"/healthz", "/readyz"})
_SAMPLE = 0.05  # seconds between two looks at the loop's clock
_RETRY = 1.0  # seconds advised to who is refused


class Admission:
    """An ASGI middleware; one for each application of a process."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.max_active)
        self._queued = 0
        self._waiting = 0
        self._lag = 0.0
        self._sampler: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self._app(scope, receive, send)
            return
        self._inside += 1
        self._watch()
        try:
            if _only_waits(scope):
                await self._beside(scope, receive, send)
            else:
                await self._in_turn(scope, receive, send)
        finally:
            self._inside -= 1

    async def _beside(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._waiting >= self._settings.max_waiting:
            raise Overloaded("Too many requests wait for the end of a job.", retry_after=_RETRY)
        self._waiting += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._waiting -= 1

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A loop that lags with few requests inside is busy with something that ends, such as loading a model: they wait for it.
        lagging = self._lag > self._settings.max_lag.total_seconds() and self._inside > self._settings.max_active // 4
        # Who would have to wait behind several rounds of others has no chance to be answered in time: no use in queueing it.
        if lagging or self._queued >= 4 * self._settings.max_active:
            raise Overloaded(retry_after=_RETRY)
        self._queued += 1
        try:
            async with asyncio.timeout(self._settings.turn.total_seconds()):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Overloaded(retry_after=_RETRY) from error
        finally:
            self._queued -= 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._turns.release()

    def _watch(self) -> None:
        """Measure the loop's lag for as long as there are requests."""
        if self._sampler is None:
            self._expect(asyncio.get_running_loop())

    def _expect(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _SAMPLE
        self._sampler = loop.call_at(self._due, self._sample, loop)

    def _sample(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lag = max(0.0, loop.time() - self._due)
        self._sampler = None
        if self._inside:
            self._expect(loop)
        else:
            self._lag = 0.0


def _only_waits(scope: Scope) -> bool:
    """Whether the request is one that mostly waits for a job: `GET /jobs/{id}/events`, or `GET /jobs/{id}?wait=`."""
    path = scope["path"]
    if scope["method"] != "GET" or not path.startswith("/jobs/"):
        return False
    return path.endswith("/events") or "wait" in parse_qs(scope.get("query_string", b"").decode("latin-1"))
