"""Sites to crawl, one for each IngestJob: a page that links to two others, the last of which is held back while its IngestJob is `held`.

So *in the middle of the work* is no matter of time: the page was asked for and is not answered.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from aiohttp import web

PAGES = 3
Name = tuple[str, str]


class Sites:
    """All of them, on one free port of 127.0.0.1; an async context manager."""

    def __init__(self) -> None:
        """Nothing listens yet."""
        self.port = 0
        self._held: dict[Name, asyncio.Event] = {}
        self._asked: dict[Name, asyncio.Event] = {}

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{namespace}/{name}/{page}", self._page)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    @property
    def allow(self) -> str:
        """The entry for SHIELD_EGRESS_ALLOW."""
        return f"127.0.0.1/32:{self.port}"

    def url(self, namespace: str, name: str) -> str:
        """Where an IngestJob's site begins."""
        return f"http://127.0.0.1:{self.port}/{namespace}/{name}/0"

    def hold(self, namespace: str, name: str) -> None:
        """Keep its last page back."""
        self._held[namespace, name] = asyncio.Event()

    def release(self, namespace: str, name: str) -> None:
        """Answer, now and from now on."""
        if event := self._held.get((namespace, name)):
            event.set()

    async def asked(self, namespace: str, name: str, limit: float) -> None:
        """Wait until the last page is asked for; the next call waits for another request."""
        event = self._asked.setdefault((namespace, name), asyncio.Event())
        async with asyncio.timeout(limit):
            await event.wait()
        event.clear()

    async def _page(self, request: web.Request) -> web.Response:
        namespace, name, page = request.match_info["namespace"], request.match_info["name"], int(request.match_info["page"])
        if page == PAGES - 1:
            self._asked.setdefault((namespace, name), asyncio.Event()).set()
            if event := self._held.get((namespace, name)):
                await event.wait()
        links = "".join(f'<p><a href="/{namespace}/{name}/{other}">page {other}</a></p>' for other in range(1, PAGES)) if page == 0 else ""
        said = f"Page {page} of {name} in {namespace} says that the lighthouse keeper of {namespace} counted {page} ships for {name} that night."
        return web.Response(
            text=f"<html><head><title>{page}</title></head><body><h1>Page {page}</h1><p>{said}</p>{links}</body></html>",
            content_type="text/html",
        )
