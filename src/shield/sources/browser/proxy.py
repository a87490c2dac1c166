"""The browser's only way out: a local forward proxy that asks the egress guard before every connection.

A page that is shown gets a lane: a secret that the browser sends as its proxy password, and a budget of bytes. Who does not
know a live secret gets 407, so no other process can use the proxy, and when the lane ends, every connection of it is cut.
Each request is resolved, checked and dialled here, to the checked address; the browser itself never resolves a name. Refused
with 403: every address the guard refuses, and everything but `http://` requests and TLS tunnels (a tunnel must begin with a
TLS handshake, so no other protocol, plain WebSockets among them, can ride in one). One request a connection: `Proxy-*` and
hop-by-hop headers are dropped, `Connection: close` is sent, no byte after the request's own body is passed on.

The bytes are counted as they travel, compressed and encrypted as they are; the size of what a page turns them into is limited
where it is read.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import re
import secrets
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address

from shield.errors import ShieldError
from shield.sources.egress import EgressGuard, Target
from shield.sources.urls import origin

GREETING = "http://shield.invalid/"
"""Answered by the proxy itself: a browser asks for it first, to learn and keep the password."""

_MAX_HEAD = 64 * 1024
_MAX_CONNECTIONS = 64  # at once, a lane; a browser opens 32 to a proxy
_PIECE = 64 * 1024
_TLS_HANDSHAKE = b"\x16"
_START = re.compile(r"([A-Z]{3,10}) ([\x21-\x7e]+) HTTP/1\.[01]")
_AUTHORITY = re.compile(r"[^/?#@\\]+:[0-9]{1,5}")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_DROPPED = frozenset({"connection", "keep-alive", "te", "trailer", "upgrade", "host", "http2-settings"})
_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})


class _Refused(Exception):
    """The request is answered with a status and goes nowhere."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Spent(Exception):
    """The lane's bytes are used up."""


@dataclass(frozen=True)
class _End:
    """One side of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, status: int) -> None:
        """Answer with nothing but a status."""
        challenge = 'Proxy-Authenticate: Basic realm="shield"\r\n' if status == 407 else ""
        length = "" if status == 204 else "Content-Length: 0\r\n"
        self.writer.write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{challenge}{length}Connection: close\r\n\r\n".encode("ascii"))
        await self.writer.drain()


@dataclass(frozen=True)
class _Request:
    """A request's head; names of headers in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, head: bytes) -> _Request:
        """Anything that two parsers could read differently is refused."""
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        start = _START.fullmatch(first)
        fields = [_HEADER.fullmatch(line) for line in lines]
        if start is None or None in fields:
            raise _Refused(400)
        return cls(start[1], start[2], tuple((found[1].lower(), found[2].strip()) for found in fields if found is not None))

    def is_plain(self) -> bool:
        """Whether it is one that may be passed on as it is."""
        return self.method in _METHODS and self.target.startswith("http://")

    def body_length(self) -> int:
        """How many bytes follow the head."""
        if any(name == "transfer-encoding" for name, _ in self.headers):
            raise _Refused(411)
        lengths = {value for name, value in self.headers if name == "content-length"} or {"0"}
        text = lengths.pop()
        if lengths or not re.fullmatch(r"[0-9]{1,12}", text):
            raise _Refused(400)
        return int(text)


@dataclass(eq=False)
class Lane:
    """What one page may use of the proxy."""

    budget: int
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    spent: int = 0
    refused: int = 0
    """Requests that the guard refused."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def overdrawn(self) -> bool:
        """Whether a connection was cut because the bytes were used up."""
        return self.spent > self.budget

    def spend(self, count: int) -> None:
        """Count bytes; ends the connection that carries them once they are too many."""
        self.spent += count
        if self.overdrawn:
            raise _Spent


class Proxy:
    """Serves the browser's connections from one listening socket; close it when done."""

    def __init__(self, guard: EgressGuard, timeout: float) -> None:
        """`timeout`: seconds for a request's head to arrive and for a connection to be made."""
        self._guard = guard
        self._timeout = timeout
        self._lanes: dict[str, Lane] = {}
        self._strangers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on a bound socket, which is owned from now on."""
        listener.setblocking(False)
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=_MAX_HEAD)

    async def close(self) -> None:
        """Stop accepting and cut every connection."""
        if self._server is not None:
            self._server.close()
        await _cut(self._strangers)
        for lane in self._lanes.values():
            await _cut(lane.tasks)
        if self._server is not None:
            await self._server.wait_closed()

    @contextlib.asynccontextmanager
    async def lane(self, budget: int) -> AsyncIterator[Lane]:
        """A way out for one page, for as long as the context lasts."""
        lane = Lane(budget)
        self._lanes[lane.secret] = lane
        try:
            yield lane
        finally:
            del self._lanes[lane.secret]
            await _cut(lane.tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._strangers.add(task)
        task.add_done_callback(self._strangers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here = _End(reader, writer)
        try:
            async with asyncio.timeout(self._timeout):
                head = await reader.readuntil(b"\r\n\r\n")
            await self._answer(head, here)
        except _Refused as refusal:
            with contextlib.suppress(OSError):
                await here.say(refusal.status)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, _Spent):
            pass  # one side left, or may not go on
        finally:
            writer.close()

    async def _answer(self, head: bytes, here: _End) -> None:
        request = _Request.parse(head)
        lane = self._admitted(request)
        lane.spend(len(head))
        if request.target == GREETING:
            return await here.say(204)
        tunnel = request.method == "CONNECT"
        if not (_AUTHORITY.fullmatch(request.target) if tunnel else request.is_plain()):
            raise _Refused(403)
        try:
            target = await self._guard.check(f"https://{request.target}/" if tunnel else request.target)
        except ShieldError as error:
            lane.refused += 1
            raise _Refused(403) from error
        if tunnel:
            return await self._tunnel(lane, target, here)
        return await self._forward(lane, target, request, here)

    def _admitted(self, request: _Request) -> Lane:
        """The lane whose secret the request names; from now on it owns the connection."""
        task = asyncio.current_task()
        for name, value in request.headers:
            if name == "proxy-authorization" and (lane := self._lane_of(value)) is not None and task is not None:
                if len(lane.tasks) >= _MAX_CONNECTIONS:
                    raise _Refused(503)
                lane.tasks.add(task)
                task.add_done_callback(lane.tasks.discard)
                return lane
        raise _Refused(407)

    def _lane_of(self, credentials: str) -> Lane | None:
        scheme, _, encoded = credentials.partition(" ")
        try:
            secret = base64.b64decode(encoded, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return None
        if scheme.lower() != "basic":
            return None
        return next((lane for known, lane in self._lanes.items() if hmac.compare_digest(known.encode(), secret)), None)

    async def _tunnel(self, lane: Lane, target: Target, here: _End) -> None:
        here.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        async with asyncio.timeout(self._timeout):
            first = await here.reader.read(_PIECE)
        if not first.startswith(_TLS_HANDSHAKE):
            return
        lane.spend(len(first))
        async with self._dialled(target) as there:
            there.writer.write(first)
            await _carry(lane, here, there)

    async def _forward(self, lane: Lane, target: Target, request: _Request, here: _End) -> None:
        length = request.body_length()
        place = str(origin(target.url))
        kept = [f"{name}: {value}" for name, value in request.headers if name not in _DROPPED and not name.startswith("proxy-")]
        lines = [f"{request.method} {target.url[len(place) :]} HTTP/1.1", f"host: {place.partition('://')[2]}", "connection: close", *kept]
        try:
            async with self._dialled(target) as there:
                there.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
                await _carry(lane, here, there, body=length)
        except _Unreachable as error:
            raise _Refused(502) from error

    @contextlib.asynccontextmanager
    async def _dialled(self, target: Target) -> AsyncIterator[_End]:
        """A connection to one of the checked addresses, and to nothing else."""
        for address in target.addresses:
            if not self._guard.permits(ip_address(address), target.port):  # a last look, as in `socket_factory`
                continue
            try:
                async with asyncio.timeout(self._timeout):
                    reader, writer = await asyncio.open_connection(address, target.port, limit=_PIECE)
            except (OSError, TimeoutError):
                continue
            try:
                yield _End(reader, writer)
            finally:
                writer.transport.abort()
            return
        raise _Unreachable


class _Unreachable(OSError):
    """None of the addresses answered."""


async def _cut(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(lane: Lane, here: _End, there: _End, body: int | None = None) -> None:
    """Carry both ways until the far side has said all it has to say; `body` bounds what goes there."""
    upwards = asyncio.create_task(_copy(lane, here, there, body))
    try:
        await _copy(lane, there, here)
    finally:
        upwards.cancel()
        await asyncio.gather(upwards, return_exceptions=True)


async def _copy(lane: Lane, source: _End, sink: _End, most: int | None = None) -> None:
    left = most
    while left is None or left > 0:
        piece = await source.reader.read(_PIECE if left is None else min(left, _PIECE))
        if not piece:
            with contextlib.suppress(OSError):
                sink.writer.write_eof()
            return
        lane.spend(len(piece))
        sink.writer.write(piece)
        await sink.writer.drain()
        left = None if left is None else left - len(piece)
