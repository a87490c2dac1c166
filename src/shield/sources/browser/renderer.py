"""Pages shown by Chromium: one browser a process, started by the first page, stopped after a pause.

At most `browser.tabs` pages are shown at once; the others wait their turn, which their time limit does not count. After
`browser.max_pages` a fresh browser takes over, and the old one ends with its last page. Should the browser die while several
pages are shown, nobody can tell whose doing it was: each of them is shown once more, in a browser of its own, one after the
other; the page that takes that one down too is the one that failed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from shield.errors import PageRenderFailed
from shield.settings import Settings
from shield.sources.browser.cdp import BrowserGone
from shield.sources.browser.chromium import Chromium
from shield.sources.browser.find import find_chromium
from shield.sources.browser.tab import Follow, Tab
from shield.sources.egress import EgressGuard
from shield.sources.fetch import Fetched

log = structlog.get_logger(__name__)


class ChromiumRenderer:
    """Shows pages; close it when done."""

    def __init__(self, executable: Path, guard: EgressGuard, settings: Settings, *, isolate: bool = True) -> None:
        """`isolate`: leave the browser no network but the proxy where the kernel can; False only shows what happens where it cannot."""
        self._executable = executable
        self._guard = guard
        self._settings = settings
        self._isolate = isolate
        self._sandbox = True
        self._tabs = asyncio.Semaphore(settings.browser.tabs)
        self._alone = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._browser: Chromium | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False

    async def render(self, page: Fetched, follow: Follow) -> Fetched:
        """The page as its scripts leave it: `body` is the tree as UTF-8 HTML, `final_url` where the page ended.

        Args:
            page: an HTML page as it was fetched; it is not asked for again.
            follow: fetches where a page leads on by script or refresh; raises to refuse it.

        Raises:
            PageTimeout, PageTooLarge, PageRenderFailed: this page's outcome.
        """
        async with self._tabs:
            try:
                async with self._shared() as browser:
                    return await Tab(browser, page, follow, self._settings).show()
            except BrowserGone:
                log.warning("browser.died")
            async with self._alone, self._own() as browser:
                try:
                    return await Tab(browser, page, follow, self._settings).show()
                except BrowserGone as error:
                    raise PageRenderFailed("The page took the browser down.") from error

    async def recycle(self) -> None:
        """Give the browser's memory back if no page is shown right now."""
        if self._browser is not None and not self._browser.users:
            self._retire()
            await self._gone()

    async def close(self) -> None:
        """Stop the browser; pages that are shown now fail."""
        self._closed = True
        async with self._starting:
            self._retire()
        await self._gone()

    async def _gone(self) -> None:
        await asyncio.gather(*self._retired, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _shared(self) -> AsyncIterator[Chromium]:
        """The browser of this process, running."""
        async with self._starting:
            if self._browser is not None and (not self._browser.devtools.open or self._browser.shown >= self._settings.browser.max_pages):
                self._retire()
            if self._browser is None:
                self._browser = await self._start()
            browser = self._browser
            browser.users += 1
            browser.shown += 1
        self._stay()
        try:
            yield browser
        finally:
            browser.users -= 1
            if not browser.users and browser.tired:
                self._end(browser)
            elif not browser.users:
                self._idle = asyncio.get_running_loop().call_later(self._settings.browser.idle.total_seconds(), self._retire)

    @contextlib.asynccontextmanager
    async def _own(self) -> AsyncIterator[Chromium]:
        browser = await self._start()
        try:
            yield browser
        finally:
            await browser.stop()

    async def _start(self) -> Chromium:
        if self._closed:
            raise PageRenderFailed("The browser was closed.")
        try:
            return await self._launch()
        except PageRenderFailed:
            if not self._sandbox or self._settings.browser.sandbox == "required":
                raise
        self._sandbox = False
        browser = await self._launch()
        log.warning(
            "browser.no_sandbox", reason="Chromium starts only without its sandbox here; set SHIELD_BROWSER_SANDBOX=required to refuse"
        )
        return browser

    async def _launch(self) -> Chromium:
        browser = await Chromium.start(self._executable, self._guard, self._settings, isolate=self._isolate, sandbox=self._sandbox)
        log.info("browser.started", isolated=browser.isolated, sandboxed=browser.sandboxed)
        return browser

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _retire(self) -> None:
        """Let the browser go; the next page starts another."""
        self._stay()
        if self._browser is not None:
            browser, self._browser = self._browser, None
            browser.tired = True
            if not browser.users or self._closed:
                self._end(browser)

    def _end(self, browser: Chromium) -> None:
        task = asyncio.create_task(browser.stop())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


def create_renderer(settings: Settings, guard: EgressGuard | None = None) -> ChromiumRenderer | None:
    """The process's renderer; None if there is no Chromium, or it may not be used.

    Raises:
        ConfigInvalid: an entry of SHIELD_EGRESS_ALLOW is not valid.
    """
    executable = find_chromium(settings.browser)
    if executable is None:
        return None
    return ChromiumRenderer(executable, guard or EgressGuard(settings.egress), settings)
