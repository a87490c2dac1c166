"""A reverse proxy that misbehaves on demand: between the operator and the API server, and between it and the orchestrator.

It forwards everything, watches as they stream, until a `Rule` matches a request by method, path and body; then the rule's fault happens to the
nth such request: an answer that the server never gave, an answer that gets lost, a kill of the process that asked, before or after the server did
what it was told. Open watches can be cut, or frozen: they stay open and say nothing. Every request that writes is in `writes`.

    async with ApiProxy(plane.url, ssl=trusted(directory), kill=operator.kill) as proxy:
        rule = proxy.add(Rule(KillAfter(), "POST", r"/namespaces/a/jobs$"))
        await rule.happened.wait()

It belongs to one event loop and listens on a free port of 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl as tls
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te", "trailer", "upgrade"})
_REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}


@dataclass(frozen=True)
class KillBefore:
    """The process that asks is killed; the server never hears of it."""


@dataclass(frozen=True)
class KillAfter:
    """The server has done it; the process is killed before it hears."""


@dataclass(frozen=True)
class Answer:
    """The server is not asked; this is the answer."""

    status: int
    reason: str = ""
    retry_after: int | None = None

    def body(self) -> dict[str, Any]:
        """As Kubernetes says it."""
        reason = self.reason or _REASONS.get(self.status, "")
        details = {} if self.retry_after is None else {"details": {"retryAfterSeconds": self.retry_after}}
        said = {"status": "Failure", "message": f"{reason}, said on purpose", "reason": reason, "code": self.status}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, **said, **details}


@dataclass(frozen=True)
class Lose:
    """The server has done it; the connection breaks before the answer."""


@dataclass(frozen=True)
class Refuse:
    """The connection breaks; the server never hears of it."""


@dataclass(frozen=True)
class Delay:
    """It takes longer."""

    seconds: float


@dataclass(frozen=True)
class Gone:
    """A watch begins, and its first event is the error 410: its place in history is forgotten."""


@dataclass(frozen=True)
class Silence:
    """A watch begins, and nothing is ever said."""


Fault = KillBefore | KillAfter | Answer | Lose | Refuse | Delay | Gone | Silence


@dataclass
class Rule:
    """What happens to which request."""

    fault: Fault
    method: str = ".*"
    """A regular expression for all of it."""
    where: str = ""
    """A regular expression that occurs in the path with its query."""
    body: str = ""
    """A regular expression that occurs in the body."""
    nth: int = 1
    """From the nth such request on."""
    times: int = 1
    """That many of them; 0: all."""
    seen: int = 0
    """How many matched."""
    done: int = 0
    """How often it happened."""
    happened: asyncio.Event = field(default_factory=asyncio.Event)
    """It happened at least once."""

    def applies(self, method: str, where: str, body: bytes) -> bool:
        """It happens to this request, now; counts."""
        if not re.fullmatch(self.method, method) or not re.search(self.where, where):
            return False
        if self.body and not re.search(self.body, body.decode(errors="replace")):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.times and self.seen >= self.nth + self.times):
            return False
        self.done += 1
        self.happened.set()
        return True


@dataclass(frozen=True)
class Write:
    """A request that writes, and what the server said; status 0: it was not asked, or nobody heard."""

    method: str
    path: str
    status: int
    at: float
    """On the monotonic clock."""


@dataclass(eq=False)
class _Watch:
    where: str
    transport: asyncio.BaseTransport
    frozen: bool = False


class ApiProxy:
    """An async context manager; see the module."""

    def __init__(self, upstream: str, *, ssl: tls.SSLContext | None = None, kill: Callable[[], None] = lambda: None) -> None:
        """Nothing listens yet.

        Args:
            upstream: where the server is.
            ssl: how to trust it; None: plain HTTP.
            kill: ends the process behind this proxy at once.
        """
        self._upstream = upstream.rstrip("/")
        self._ssl = ssl
        self.kill = kill
        """Ends the process behind this proxy at once."""
        self._rules: list[Rule] = []
        self._watches: set[_Watch] = set()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.writes: list[Write] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=True if self._ssl is None else self._ssl, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{rest:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def add(self, rule: Rule) -> Rule:
        """From now on."""
        self._rules.append(rule)
        return rule

    def remove(self, *rules: Rule) -> None:
        """No longer."""
        self._rules = [rule for rule in self._rules if not any(rule is one for one in rules)]

    def freeze(self, where: str = "") -> int:
        """The open watches of these paths stay open and say nothing any more; how many there were."""
        found = [watch for watch in self._watches if re.search(where, watch.where)]
        for watch in found:
            watch.frozen = True
        return len(found)

    def cut(self, where: str = "") -> int:
        """The open watches of these paths break off; how many there were."""
        found = [watch for watch in self._watches if re.search(where, watch.where)]
        for watch in found:
            _break(watch.transport)
        return len(found)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        where = request.path_qs
        rule = next((rule for rule in self._rules if rule.applies(request.method, where, body)), None)
        fault = rule.fault if rule else None
        match fault:
            case KillBefore():
                self.kill()
                return self._lost(request)
            case Refuse():
                return self._lost(request)
            case Answer():
                self._note(request, 0)
                headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                return web.json_response(fault.body(), status=fault.status, headers=headers)
            case Gone():
                event = {"type": "ERROR", "object": Answer(410).body()}
                return web.Response(body=json.dumps(event).encode() + b"\n", content_type="application/json")
            case Delay():
                await asyncio.sleep(fault.seconds)
        if request.query.get("watch") in {"1", "true"}:
            return await self._stream(request, silent=isinstance(fault, Silence))
        return await self._forward(request, body, fault)

    async def _forward(self, request: web.Request, body: bytes, fault: Fault | None) -> web.Response:
        try:
            async with self._ask(request, body) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, OSError):
            return self._lost(request)
        self._note(request, answer.status)
        if isinstance(fault, KillAfter):
            self.kill()
        if isinstance(fault, KillAfter | Lose):
            return self._lost(request, note=False)
        return web.Response(body=content, status=answer.status, headers=_end_to_end(answer.headers.items()))

    async def _stream(self, request: web.Request, *, silent: bool) -> web.StreamResponse:
        if request.transport is None:
            return web.Response()
        watch = _Watch(request.path_qs, request.transport, frozen=silent)
        self._watches.add(watch)
        try:
            async with self._ask(request, b"") as answer:
                response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers.items()))
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    if not watch.frozen:
                        await response.write(chunk)
                while watch.frozen and not watch.transport.is_closing():  # the server has ended it, which a silent line does not tell
                    await asyncio.sleep(0.1)
                return response
        except (aiohttp.ClientError, OSError):
            return self._lost(request)
        finally:
            self._watches.discard(watch)

    def _ask(self, request: web.Request, body: bytes) -> Any:
        if self._session is None:
            raise RuntimeError("the proxy is not open")
        url = URL(self._upstream + request.path_qs, encoded=True)
        return self._session.request(
            request.method, url, data=body or None, headers=_end_to_end(request.headers.items()), allow_redirects=False
        )

    def _lost(self, request: web.Request, *, note: bool = True) -> web.Response:
        if note:
            self._note(request, 0)
        if request.transport is not None:
            _break(request.transport)
        return web.Response()

    def _note(self, request: web.Request, status: int) -> None:
        if request.method in WRITES:
            self.writes.append(Write(request.method, request.path, status, time.monotonic()))


def _end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _HOP]


def _break(transport: asyncio.BaseTransport) -> None:
    with suppress(AttributeError):
        transport.abort()  # type: ignore[attr-defined]  # every stream transport has it; the base class does not


def our_writes(writes: Iterable[Write]) -> dict[str, int]:
    """How many writes of each sort the server took: `POST jobs`, `PATCH ingestjobs/status`, ...; leases are nobody's IngestJob."""
    counts: dict[str, int] = {}
    for write in writes:
        sort = sort_of(write)
        if 200 <= write.status < 300 and not sort.endswith(" leases"):
            counts[sort] = counts.get(sort, 0) + 1
    return counts


def sort_of(write: Write) -> str:
    """Method and resource: `DELETE jobs`."""
    found = re.search(r"/namespaces/[^/]+/([^/]+)(?:/[^/]+(?:/([^/]+))?)?$", write.path)
    resource = "/".join(part for part in found.groups() if part) if found else write.path
    return f"{write.method} {resource}"
