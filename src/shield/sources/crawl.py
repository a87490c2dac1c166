"""Crawling a site: breadth first, exactly as many pages as asked for, and the same ones after a crash.

The pages of one depth are requested up to `concurrency` at a time, in the order of their numbers; each answer is made durable
as it comes (`frontier.py`) and then handed to the sink strictly by number. The next depth begins when this one has ended, so
nothing that is decided (numbers, duplicates, which pages use up `max_pages`) depends on how fast a site answers.

`max_pages` counts pages for which a request was sent, whatever came of it; a page that robots.txt or the egress guard refuses
is not counted. A page is requested only while the pages counted and the pages in flight together are fewer than `max_pages`, so
the count is exact. After a crash a new run requests only what was in flight; the sink may see a page it has seen before, once,
and must store it as the same thing again. A page that leads, by redirects, where a lower-numbered one led is `page.duplicate`, and
so is one that says the same as a lower-numbered one if either names the other as its canonical address. The name alone is not
believed: a site that names its home page on every page loses nothing, and no page can take another's place.

Sitemaps, where asked for, are read before the first page; what they list begins at depth 0 beside the start page. Links and
redirects that the globs leave out are never requested; the start page always is. What earlier crawls know (`revisit.py`) saves
the transfer, the conversion and the embedding of pages that did not change.

What the sink raises is the page's outcome if the page is the cause (`document.*`, `page.*`, `dependency.rejected` and the
like); everything else (a dependency is down, the lease is lost) ends the run and leaves the page for the next one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import NoReturn, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import (
    DocumentDeleting,
    PageDuplicate,
    PageExcluded,
    PageLeftScope,
    PageNeedsBrowser,
    RobotsDelayTooLong,
    RobotsDenied,
    ShieldError,
    UrlInvalid,
    blames_content,
)
from shield.jobs.model import Claim
from shield.settings import CrawlSettings
from shield.sources.bounds import Bounds
from shield.sources.browser.shell import needs_browser
from shield.sources.fetch import HTML_TYPES, Fetched, Fetcher, Gate
from shield.sources.frontier import FAILED, SKIPPED, Answer, Content, Frontier, Row
from shield.sources.model import Converted
from shield.sources.revisit import NOT_MODIFIED, Gone, Known, Revisits
from shield.sources.robots import Robots
from shield.sources.sitemap import Seeds, Sitemaps
from shield.sources.urls import canonical, origin

_SKIPS = (RobotsDenied, RobotsDelayTooLong, PageDuplicate, PageExcluded)
_START = 1
"""The start page's number."""
_LINKS_EXAMINED = 20  # times max_links: how many of a page's links are looked at to find that many to follow

Checkpoint = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class CrawlPlan:
    """What to crawl."""

    url: str
    max_pages: int = 50
    max_depth: int = 3
    allowed_domains: tuple[str, ...] = ()
    sitemaps: tuple[str, ...] = ()
    """Sitemaps to begin with as well: addresses, or `auto` for those that the site names."""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    """Globs over the path of links: only these, and not those."""
    accept_crawl_delay: float | None = None
    """Longest pause, in seconds, that robots.txt may ask for; default: the setting."""
    recipe: str | None = None
    """What decides what a page is turned into; None: nothing is remembered from crawl to crawl."""
    render: str = "http"
    """How pages are read: `http`; `browser`: each HTML page as its scripts leave it; `auto`: only those that are empty without."""
    refresh: bool = False
    """Request, convert and store every page anew, whatever earlier crawls know."""


@dataclass(frozen=True)
class Page:
    """A page that was read."""

    converted: Converted
    links: Sequence[str]
    """As it names them, in their order."""
    text_hash: str


class Renderer(Protocol):
    """Shows a page in a browser."""

    async def render(self, page: Fetched, follow: Callable[[str], Awaitable[Fetched]]) -> Fetched:
        """The page as its scripts leave it; `follow` fetches where they lead on to. Raises ShieldError: the page's outcome."""


class PageSink(Protocol):
    """Where pages go, one after the other, by number. A page may come again after a crash, with the same content."""

    async def read(self, number: int, fetched: Fetched) -> Page:
        """Convert a page. Raises ShieldError: the page's outcome."""

    async def store(self, number: int, fetched: Fetched, page: Page) -> tuple[UUID, int]:
        """Store what was read; the document and its revision. Raises ShieldError: the page's outcome."""

    async def unchanged(self, number: int, fetched: Fetched, known: Known) -> bool:
        """The page is as `known` says: keep its document. False, and nothing done, if that is gone meanwhile."""

    async def failed(self, number: int, url: str, error: ShieldError, counted: bool) -> None:
        """The page gave nothing."""

    async def skipped(self, number: int, url: str, error: ShieldError, counted: bool) -> None:
        """The page was left out on purpose: robots.txt, or a duplicate."""

    async def counts(self, found: int, fetched: int) -> None:
        """Pages known so far, and pages requested so far (`max_pages` bounds the second)."""


class Crawler:
    """Runs crawl jobs; one a process, so that robots.txt and politeness are shared."""

    def __init__(self, engine: AsyncEngine, fetcher: Fetcher, settings: CrawlSettings, renderer: Renderer | None = None) -> None:
        """`renderer`: None where no browser may be used; a page that needs one is then `page.needs_browser`."""
        self._engine = engine
        self._fetcher = fetcher
        self._settings = settings
        self._robots = Robots(fetcher, settings)
        self._renderer = renderer

    async def run(self, claim: Claim, plan: CrawlPlan, sink: PageSink, checkpoint: Checkpoint) -> None:
        """Crawl to the end, or on from where an earlier run of the job stopped.

        A retry (`claim.job.retry_of`) begins with what the old job finished: its stored pages count and are not requested again,
        nor handed to the sink; everything else is queued under its old number.

        Args:
            claim: the job; its fence goes with every write.
            plan: the same for every run of the job.
            sink: takes the pages.
            checkpoint: called before each page is handed over; may raise to stop the run (cancelled, draining).

        Raises:
            UrlInvalid, InvalidRequest: the plan makes no sense.
            LeaseLost: another run owns the job.
            ShieldError: what `checkpoint` raised, or what `sink` raised that is not about a page.
        """
        frontier = Frontier(self._engine, claim.job.id, claim.fence, max_pages=plan.max_pages, max_queued=self._settings.max_queued)
        if claim.job.retry_of is not None:
            await frontier.adopt(claim.job.retry_of)
        bounds = _bounds(plan)
        revisits = self._revisits(claim, plan, bounds)
        await _Run(self._fetcher, self._robots, self._renderer, self._settings, frontier, plan, bounds, revisits, sink, checkpoint).crawl()

    async def gone(self, claim: Claim, plan: CrawlPlan) -> list[Gone]:
        """The documents of earlier crawls whose pages the site has no more, once `run` has ended.

        Raises:
            CrawlIncomplete: the crawl did not see the whole site.
        """
        bounds = _bounds(plan)
        revisits = self._revisits(claim, plan, bounds)
        return [] if revisits is None else await revisits.gone(bounds.wanted, max_rows=plan.max_pages + self._settings.max_queued)

    def _revisits(self, claim: Claim, plan: CrawlPlan, bounds: Bounds) -> Revisits | None:
        if plan.recipe is None:
            return None
        # The links that are kept of a page are those that its crawl could follow.
        what = "\n".join([plan.recipe, plan.render, bounds.name, str(self._settings.max_links)])
        recipe = hashlib.sha256(what.encode()).hexdigest()
        return Revisits(self._engine, claim.job.knowledge_base_id, claim.job.id, start=canonical(plan.url), recipe=recipe)


@dataclass
class _Run:
    """One run of one job."""

    fetcher: Fetcher
    robots: Robots
    renderer: Renderer | None
    settings: CrawlSettings
    frontier: Frontier
    plan: CrawlPlan
    bounds: Bounds
    revisits: Revisits | None
    sink: PageSink
    checkpoint: Checkpoint
    found: int = 0
    counted: int = 0
    undecided: int = 0
    """Requested or about to be, not yet known whether they count."""

    async def crawl(self) -> None:
        await self._begin()
        self.found, self.counted = await self.frontier.totals()
        await self.sink.counts(self.found, self.counted)
        while rows := await self.frontier.next_level(budget_left=self.counted < self.plan.max_pages):
            with _one_error():
                await self._level(rows)

    async def _begin(self) -> None:
        """Queue the start page and what the sitemaps list, once a job."""
        start = canonical(self.plan.url)
        begun = await self.frontier.begun()
        named = await self.frontier.unread() if begun else self.plan.sitemaps
        if begun and not named:
            return
        seeds = Seeds()
        if named:
            sitemaps = Sitemaps(
                self.fetcher,
                self.robots,
                self.settings,
                gate=partial(self._gate, anywhere=True),
                in_scope=self.bounds.scope.__contains__,
                checkpoint=self.checkpoint,
            )
            most = self.plan.max_pages + self.settings.max_queued
            seeds = await sitemaps.read(named, start, wanted=self.bounds.wanted, most=most)
        await self.frontier.begin(start, list(seeds.urls), seeds.failures, cut=seeds.cut)

    async def _gate(self, url: str, *, anywhere: bool) -> timedelta | None:
        """Refuse a hop out of the scope, to what the globs leave out unless `anywhere`, and where robots.txt says no."""
        if url not in self.bounds.scope:
            raise PageLeftScope(f"The page redirects to `{origin(url).host}`, out of the allowed domains.")
        if not anywhere and not self.bounds.wanted(url):
            raise PageExcluded
        accept = None if self.plan.accept_crawl_delay is None else timedelta(seconds=self.plan.accept_crawl_delay)
        return await self.robots.admit(url, accept)

    async def _level(self, rows: Sequence[Row]) -> None:
        depth = rows[0].depth
        waiting = deque(rows)
        reached = await self.frontier.reached_above(depth)
        started: deque[tuple[Row, asyncio.Task[None] | None]] = deque()
        async with asyncio.TaskGroup() as tasks:
            while waiting or started:
                while waiting and len(started) < self.settings.concurrency and self._may_start(waiting[0]):
                    row = waiting.popleft()
                    started.append((row, None if row.fetched else tasks.create_task(self._acquire(row, reached))))
                    self.undecided += not row.fetched
                if not started:
                    return  # max_pages is used up
                row, task = started.popleft()
                if task is not None:
                    await task
                await self.checkpoint()
                await self._hand_over(row, follow=depth < self.plan.max_depth)
                await self.sink.counts(self.found, self.counted)

    def _may_start(self, row: Row) -> bool:
        return row.fetched or self.counted + self.undecided < self.plan.max_pages

    async def _acquire(self, row: Row, reached: frozenset[str]) -> None:
        """Request a page and make its answer durable."""
        counted = False

        def sent() -> None:
            nonlocal counted
            counted = True

        try:
            if row.url in reached:
                raise PageDuplicate
            known = await self._known(row.url)
            gate = partial(self._gate, anywhere=row.number == _START)
            fetched = await self.fetcher.fetch(row.url, gate=gate, sent=sent, validators=known.validators if known else None)
            answer = Answer(counted=True, fetched=await self._shown(fetched, gate))
        except ShieldError as error:
            if not blames_content(error):
                raise
            answer = Answer(counted, error=error)
        await self.frontier.store(row.number, answer)
        self.undecided -= 1
        self.counted += answer.counted

    async def _shown(self, fetched: Fetched, gate: Gate) -> Fetched:
        """The page as it was sent, or as a browser shows it."""
        if self.plan.render == "http" or fetched.status == NOT_MODIFIED or fetched.content_type not in HTML_TYPES:
            return fetched
        if self.plan.render == "auto" and not await asyncio.to_thread(needs_browser, fetched.body):
            return fetched
        if self.renderer is None:
            raise PageNeedsBrowser
        return await self.renderer.render(fetched, partial(self.fetcher.fetch, gate=gate))

    async def _known(self, url: str) -> Known | None:
        return None if self.revisits is None or self.plan.refresh else await self.revisits.known(url)

    async def _hand_over(self, row: Row, *, follow: bool) -> None:
        """Give a stored answer to the sink, then end the page. The sink goes first: it may see a page again, never miss one."""
        answer = await self.frontier.load(row.number)
        error = answer.error
        if answer.fetched is not None:
            try:
                self.found += await self._take(row, answer.fetched, follow=follow)
            except ShieldError as raised:
                if not blames_content(raised):
                    raise
                error = raised
            else:
                return
        assert error is not None  # noqa: S101 -- an answer without content has an error
        if isinstance(error, _SKIPS):
            await self.sink.skipped(row.number, row.url, error, answer.counted)
        else:
            await self.sink.failed(row.number, row.url, error, answer.counted)
        await self.frontier.finish(row.number, SKIPPED if isinstance(error, _SKIPS) else FAILED, error)

    async def _take(self, row: Row, fetched: Fetched, *, follow: bool) -> int:
        """Keep or store what a page gave, then end it; how many new pages it leads to."""
        known = await self._known(row.url)
        if known is not None and known.holds(fetched):
            await self._refuse_twin(row, fetched, known.content)
            if await self.sink.unchanged(row.number, fetched, known):
                return await self._done(row, fetched, known.content, known.document, known, follow=follow)
        if fetched.status == NOT_MODIFIED:
            raise DocumentDeleting("The page did not change, but its document was replaced or deleted while the site was crawled.")
        page = await self.sink.read(row.number, fetched)
        content = await asyncio.to_thread(self._content, fetched, page)
        await self._refuse_twin(row, fetched, content)
        document = await self.sink.store(row.number, fetched, page)
        return await self._done(row, fetched, content, document, None, follow=follow)

    async def _refuse_twin(self, row: Row, fetched: Fetched, content: Content) -> None:
        if await self.frontier.twin(row.number, fetched.final_url, content):
            raise PageDuplicate("The page says the same as another one, and one names the other as its canonical address.")

    async def _done(
        self, row: Row, fetched: Fetched, content: Content, document: tuple[UUID, int], known: Known | None, *, follow: bool
    ) -> int:
        remember = None
        if self.revisits is not None:
            remember = partial(self.revisits.remember, fetched=fetched, content=content, document=document, known=known)
        return await self.frontier.done(row.number, content, follow=follow, remember=remember)

    def _content(self, fetched: Fetched, page: Page) -> Content:
        """What of a page matters to the crawl; its links are the first `max_links` distinct addresses that are wanted, canonical."""
        kept: dict[str, None] = {}
        examined = _LINKS_EXAMINED * self.settings.max_links
        for link in page.links[:examined]:
            url = _canonical(link)
            if url is not None and self.bounds.wanted(url):
                kept[url] = None
            if len(kept) == self.settings.max_links:
                break
        own = _canonical(page.converted.canonical)
        return Content(
            links=list(kept),
            cut=len(kept) == self.settings.max_links or len(page.links) >= examined,
            canonical=own if own != fetched.final_url else None,
            text_hash=page.text_hash,
        )


def _bounds(plan: CrawlPlan) -> Bounds:
    return Bounds.of(plan.url, plan.allowed_domains, plan.include, plan.exclude)


def _canonical(link: str) -> str | None:
    try:
        return canonical(link) if link else None
    except UrlInvalid:
        return None


@contextmanager
def _one_error() -> Iterator[None]:
    """Let the first error out of a task group as itself: callers catch `LeaseLost`, not groups."""
    try:
        yield
    except BaseExceptionGroup as group:
        _raise_first(group)


def _raise_first(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    first = group.exceptions[0]
    if isinstance(first, BaseExceptionGroup):
        _raise_first(first)
    raise first from first.__cause__
