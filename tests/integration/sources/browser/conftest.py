"""A real Chromium, a site it may read, and a canary beside it that must never be asked for anything."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from shield.settings import Settings, load
from shield.sources.browser.find import find_chromium
from shield.sources.browser.renderer import ChromiumRenderer
from shield.sources.egress import EgressGuard, Resolve
from shield.sources.fetch import Fetched, Fetcher
from shield.sources.politeness import Politeness
from tests.peers.site import Site


def browser_settings(*ports: int, public: int = 443, page_timeout: float = 40, **browser: object) -> Settings:
    """Settings that open exactly these loopback ports, and port `public` of public addresses; a page has much time on a busy machine."""
    crawl = {"per_host_delay": 0, "page_timeout": page_timeout, "max_page_bytes": 2_000_000}
    allow = [f"127.0.0.1/32:{port}" for port in ports]
    return load(
        data_dir=Path("/nonexistent"),
        egress={"allow": allow, "ports": [80, public]},
        crawl=crawl,
        browser={"settle": 4, "quiet": 0.2} | browser,
    )


def chromium(settings: Settings) -> Path:
    """The Chromium of this machine; a test without it fails and says how to get it."""
    found = find_chromium(settings.browser)
    if found is None:
        pytest.fail("Chromium is missing: tools/chromium installs it (as root, on Debian or Ubuntu)")
    return found


@dataclass
class Stage:
    """A renderer and what it may and may not reach."""

    site: Site
    canary: Site
    knocks: socket.socket
    """A UDP socket beside the canary; readable if anybody sent something."""
    settings: Settings
    renderer: ChromiumRenderer
    fetcher: Fetcher
    guard: EgressGuard

    def page(self, html: str, path: str = "/start") -> Fetched:
        """A page as the fetcher would have got it from the site."""
        url = self.site.url + path
        return Fetched(url, url, 200, "text/html", "utf-8", html.encode(), '"tag"', "today", datetime.now(UTC))

    async def show(self, html: str, path: str = "/start") -> str:
        """What the browser makes of a page."""
        return (await self.renderer.render(self.page(html, path), self.fetcher.fetch)).body.decode()

    def alarmed(self) -> bool:
        """Whether anything reached the canary or its UDP socket."""
        try:
            self.knocks.recv(1)
        except BlockingIOError:
            return bool(self.canary.log)
        return True


@contextlib.asynccontextmanager
async def staged(
    *, isolate: bool = True, resolve: Resolve | None = None, page_timeout: float = 40, **browser: object
) -> AsyncIterator[Stage]:
    """Set the stage; everything is gone afterwards."""
    async with Site() as site, Site() as canary:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knocks:
            knocks.bind(("127.0.0.1", 0))
            knocks.setblocking(False)
            # The canary's port is open, so that it is its address alone that is refused.
            settings = browser_settings(site.port, public=canary.port, page_timeout=page_timeout, **browser)
            guard = EgressGuard(settings.egress, resolve)
            renderer = ChromiumRenderer(chromium(settings), guard, settings, isolate=isolate)
            fetcher = Fetcher(guard, Politeness(settings.crawl), settings)
            try:
                yield Stage(site, canary, knocks, settings, renderer, fetcher, guard)
            finally:
                await renderer.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """One browser for all tests that take it as it is."""
    async with staged(resolve=names()) as stage:
        yield stage


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def open_stage() -> AsyncIterator[Stage]:
    """The same where the kernel gives the browser no network of its own: flags, proxy and guard stand alone."""
    async with staged(isolate=False, resolve=names()) as stage:
        yield stage


def names() -> Resolve:
    """The names of these tests; `turning.test` is another address each time it is asked for after the first."""
    turning = iter(["127.0.0.1"])

    async def resolve(host: str, port: int) -> list[str]:
        if host == "turning.test":
            return [next(turning, "127.0.0.2")]
        return {"inside.test": ["10.0.0.7"], "mixed.test": ["93.184.216.34", "127.0.0.1"]}.get(host, [])

    return resolve


_HOST = "shield.sources.browser.host"


def browsers(above: int | None = None) -> list[psutil.Process]:
    """All processes of Chromium and its hosts below a process (default: this one)."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.Process(above).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            called = process.cmdline()
            if _HOST in called or process.name().startswith("chrom"):
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    return list(found.values())
