"""Admission: a server that is asked for more than it can do refuses the surplus at once and answers the rest in time.

Without it every caller of an overloaded server waits until its own time-out, and nobody gets an answer. Requests are told apart by what
they cost:

- *work*, most of them, keeps the processor busy: few at once (`max_active`), and who gets no turn within `turn` is refused. More at once
  would not be answered sooner, only later all together;
- *answers* wait for a language model while they cost nothing: many at once (`max_answering`), so that slow answers do not keep searches out;
- *waits* are for a job's end, its events, or the rest of a body: only counted (`max_waiting`). So nobody holds a turn by sending slowly.

A tool call is told by its `Mcp-Name`; clients of the older protocol send none, and may wait for a language model.

Credentials are checked before, so that strangers take no turn and no body is read for them.

And while the event loop lags behind by more than `max_lag` with more than a few requests inside, new ones are refused before they cost
anything. Liveness and readiness are always answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shield.errors import Overloaded
from shield.settings import ApiSettings

_ALWAYS = frozenset({"/healthz", "/readyz"})
_SAMPLE = 0.05  # seconds between two looks at the loop's clock
_RETRY = 1.0  # seconds advised to who is refused
_FEW = 4  # requests that no lag keeps out
_SHORT = 64 * 1024  # bytes of a body that is read before its turn


class Cost(StrEnum):
    """What a request costs this process."""

    WORK = "work"
    ANSWER = "answer"
    WAIT = "wait"


class Admission:
    """An ASGI middleware; one for each application of a process.

    `model`: answers wait for a language model. Without one they are work like any other.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings, *, model: bool = True) -> None:
        self._app = app
        self._settings = settings
        work = _Turns(settings.max_active, settings.turn.total_seconds())
        answers = _Turns(settings.max_answering, settings.turn.total_seconds())
        self._turns = {Cost.WORK: work, Cost.ANSWER: answers if model else work}
        self._waiting = _Room(settings.max_waiting, "Too many requests wait for something else to end.")
        self._receiving = _Room(settings.max_waiting, "Too many requests are still being sent.")
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
            cost = _cost(scope)
            # A loop that lags with few requests inside is busy with something that ends, such as loading a model: they wait for it.
            lagging = self._lag > self._settings.max_lag.total_seconds() and self._inside > _FEW
            if lagging:
                raise Overloaded(retry_after=_RETRY)
            if cost is Cost.WAIT:
                with self._waiting:
                    await self._app(scope, receive, send)
                return
            with self._receiving:
                body = _Body(scope, receive)
                await body.read()
                if not body.complete:
                    await self._app(scope, receive, send)
                    return
            async with self._turns[cost]:
                await self._app(scope, body.receive, send)
        finally:
            self._inside -= 1

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


class _Room:
    """Room for a bounded number of requests that cost nothing."""

    def __init__(self, size: int, full: str) -> None:
        self._size = size
        self._full = full
        self._taken = 0

    def __enter__(self) -> None:
        if self._taken >= self._size:
            raise Overloaded(self._full, retry_after=_RETRY)
        self._taken += 1

    def __exit__(self, *_: object) -> None:
        self._taken -= 1


class _Body:
    """A short body, read before its request's turn and handed on within it. A long one streams, and takes no turn."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._read: deque[Message] = deque()
        length = headers.get("content-length", "0")
        self._short = length.isdecimal() and int(length) <= _SHORT and "transfer-encoding" not in headers
        self._expected = self._short and int(length) > 0
        self.complete = False

    async def read(self) -> None:
        """Read a short body."""
        self.complete = self._short
        more = self._expected
        while more:
            message = await self._receive()
            self._read.append(message)
            more = message.get("more_body", False)

    async def receive(self) -> Message:
        """The next message."""
        return self._read.popleft() if self._read else await self._receive()


class _Turns:
    """A bounded number of turns, and a bounded queue for them."""

    def __init__(self, turns: int, patience: float) -> None:
        self._turns = asyncio.Semaphore(turns)
        self._patience = patience
        self._queue = 4 * turns
        self._queued = 0

    async def __aenter__(self) -> None:
        # Who would have to wait behind several rounds of others has no chance to be answered in time: no use in queueing it.
        if self._queued >= self._queue:
            raise Overloaded(retry_after=_RETRY)
        self._queued += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Overloaded(retry_after=_RETRY) from error
        finally:
            self._queued -= 1

    async def __aexit__(self, *_: object) -> None:
        self._turns.release()


def _cost(scope: Scope) -> Cost:
    path = scope["path"]
    if path == "/mcp":
        tool = Headers(scope=scope).get("mcp-name")
        return Cost.ANSWER if tool is None else _TOOLS.get(tool, Cost.WORK)
    if path == "/lightrag/query":
        return Cost.ANSWER
    waits = scope["method"] == "GET" and path.startswith("/jobs/")
    if waits and (path.endswith("/events") or "wait" in parse_qs(scope.get("query_string", b"").decode("latin-1"))):
        return Cost.WAIT
    return Cost.WORK


_TOOLS = {"lightrag_query": Cost.ANSWER, "get_job_status": Cost.WAIT}
