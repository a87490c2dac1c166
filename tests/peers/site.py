"""A web site to crawl: plain pages in a tree, and every trick a hostile or broken site plays, with an access log.

    async with Site(pages=60) as site:
        site.url            # http://127.0.0.1:PORT
        site.log            # list of Visit: path, start, end, status, headers, in order of arrival
        site.pages_log()    # the same without robots.txt

Page 0 is `/`, page n is `/page/n`; page n links to its `fan` children, to `/`, and to its neighbour. Each page has a heading and
sentences of its own, the same in every run. `site.put(path, ...)` adds a page, `site.route(path, handler)` anything else.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_WORDS = [
    "harbour",
    "lantern",
    "granite",
    "meadow",
    "copper",
    "violin",
    "orchard",
    "thunder",
    "saddle",
    "compass",
    "marble",
    "willow",
    "falcon",
    "ember",
    "canyon",
    "ribbon",
]


@dataclass
class Visit:
    """One request as the site saw it."""

    path: str
    start: float
    headers: Mapping[str, str]
    end: float | None = None
    status: int | None = None


@dataclass
class Site:
    """A site on a free loopback port; see the module."""

    pages: int = 0
    fan: int = 5
    robots: str | int | None = None
    """The text of robots.txt, or the status it answers with; None = 404."""
    delay: Callable[[str], float] | None = None
    """Seconds to wait before answering a path."""
    log: list[Visit] = field(default_factory=list)
    port: int = 0
    host: str = "127.0.0.1"
    _routes: dict[str, Handler] = field(default_factory=dict)
    _runner: web.AppRunner | None = None
    _knock: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def allow(self) -> str:
        """The entry for SHIELD_EGRESS_ALLOW that opens exactly this site."""
        return f"{self.host}/32:{self.port}"

    def pages_log(self) -> list[str]:
        """Paths asked for, robots.txt left out, in order of arrival."""
        return [visit.path for visit in self.log if visit.path != "/robots.txt"]

    async def visited(self, count: int, limit: float = 10) -> None:
        """Come back once that many requests have arrived."""
        async with asyncio.timeout(limit):
            while len(self.log) < count:
                self._knock.clear()
                await self._knock.wait()

    def hits(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(visit.path == path for visit in self.log)

    def put(self, path: str, body: str | bytes = "", *, status: int = 200, content_type: str | None = "text/html", **headers: str) -> None:
        """Serve fixed content; header names are written with underscores. With ETag or Last_Modified, a repeated visit gets a 304."""
        raw = body.encode() if isinstance(body, str) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type:
            named["Content-Type"] = content_type

        async def answer(request: web.Request) -> web.StreamResponse:
            told = {"If-None-Match": named.get("ETag"), "If-Modified-Since": named.get("Last-Modified")}
            if any(value is not None and request.headers.get(name) == value for name, value in told.items()):
                return web.Response(status=304, headers={"ETag": named["ETag"]} if "ETag" in named else {})
            return web.Response(body=raw, status=status, headers=named)

        self._routes[path] = answer

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        """Send whoever asks for `path` to `to`."""
        self.put(path, status=status, Location=to)

    def throttle(self, path: str, times: int, retry_after: str | None, status: int = 429, body: str = "at last") -> None:
        """Answer `status` the first `times` times, then a page."""
        left = [times]

        async def answer(_: web.Request) -> web.StreamResponse:
            if left[0]:
                left[0] -= 1
                return web.Response(status=status, headers={} if retry_after is None else {"Retry-After": retry_after})
            return web.Response(text=page_html("Patience", body), content_type="text/html")

        self._routes[path] = answer

    def bomb(self, path: str, megabytes: int) -> None:
        """A small gzip body of zeros that unpacks to that size."""
        packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        zeros = bytes(1024 * 1024)
        self.put(path, b"".join([*(packer.compress(zeros) for _ in range(megabytes)), packer.flush()]), Content_Encoding="gzip")

    def endless(self, path: str, pause: float = 0.01) -> None:
        """A body that never ends."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/plain"})
            await response.prepare(request)
            while True:
                await response.write(b"more and more ")
                await asyncio.sleep(pause)

        self._routes[path] = answer

    def route(self, path: str, handler: Handler) -> None:
        """Anything else."""
        self._routes[path] = handler

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._logged])
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        listener = web.TCPSite(self._runner, self.host, self.port)
        await listener.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _logged(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        visit = Visit(request.path_qs, time.monotonic(), dict(request.headers))
        self.log.append(visit)
        self._knock.set()
        try:
            if self.delay is not None:
                await asyncio.sleep(self.delay(request.path_qs))
            response = await handler(request)
            visit.status = response.status
            return response
        finally:
            visit.end = time.monotonic()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path_qs
        if path in self._routes:
            return await self._routes[path](request)
        if path == "/robots.txt":
            if isinstance(self.robots, str):
                return web.Response(text=self.robots)
            return web.Response(status=self.robots or 404)
        number = self._number(path)
        if number is None:
            return web.Response(status=404, text="no such page")
        return web.Response(text=self._page(number), content_type="text/html")

    def _number(self, path: str) -> int | None:
        if path == "/" and self.pages:
            return 0
        head, _, tail = path.rpartition("/")
        if head == "/page" and tail.isdigit() and 0 < int(tail) < self.pages:
            return int(tail)
        return None

    def _page(self, number: int) -> str:
        children = range(self.fan * number + 1, min(self.fan * number + self.fan + 1, self.pages))
        neighbour = f"/page/{number - 1}" if number > 1 else "/"
        return page_html(
            f"Page {number}",
            page_text(number),
            links=["/", *(f"/page/{child}#part" for child in children), neighbour, "mailto:x@example.com"],
        )


def page_text(number: int) -> str:
    """The sentences of generated page `number`; no other page has them."""
    word, other = _WORDS[number % len(_WORDS)], _WORDS[(number * 7 + 3) % len(_WORDS)]
    return (
        f"Station {number} stands beside the {word} and was opened in the year {1800 + number}. "
        f"Its keeper number {number * 31 + 7} writes down every {other} that passes the gate before noon."
    )


def page_html(title: str, text: str, links: list[str] | None = None) -> str:
    """A small, valid page."""
    items = "".join(f'<li><a href="{link}">{link}</a></li>' for link in links or [])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><main><h1>{title}</h1><p>{text}</p><ul>{items}</ul></main></body></html>"
    )


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[int]:
    """A TCP server that reads a request's head and sends these bytes, valid HTTP or not; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
