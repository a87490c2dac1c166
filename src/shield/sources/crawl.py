"""Crawling a site: breadth first, exactly as many pages as asked for, and the same ones after a crash.

The pages of one depth are requested up to `concurrency` at a time, in the order of their numbers; each answer is made durable
as it comes (`frontier.py`) and then handed to the sink strictly by number. The next depth begins when this one has ended, so
nothing that is decided (numbers, duplicates, which pages use up `max_pages`) depends on how fast a site answers.

`max_pages` counts pages for which a request was sent, whatever came of it; a page that robots.txt or the egress guard refuses
is not counted. A page is requested only while the pages counted and the pages in flight together are fewer than `max_pages`, so
the count is exact. After a crash a new run requests only what was in flight; the sink may see a page it has seen before, once,
and must store it as the same thing again. A page that leads, by redirects, where a lower-numbered one led is `page.duplicate`.

What the sink raises is the page's outcome if the page is the cause (`document.*`, `page.*`, `dependency.rejected` and the
like); everything else (a dependency is down, the lease is lost) ends the run and leaves the page for the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import (
    DependencyRejected,
    PageDuplicate,
    PageLeftScope,
    RobotsDelayTooLong,
    RobotsDenied,
    ShieldError,
    UrlInvalid,
)
from shield.jobs.model import Claim
from shield.settings import CrawlSettings
from shield.sources.fetch import Fetched, Fetcher
from shield.sources.frontier import FAILED, SKIPPED, Answer, Frontier, Row
from shield.sources.robots import Robots
from shield.sources.urls import Scope, canonical, origin

_SKIPS = (RobotsDenied, RobotsDelayTooLong, PageDuplicate)
_PAGE_AREAS = frozenset({"page", "document", "robots", "egress", "crawl"})
_LINKS_EXAMINED = 20  # times max_links: how many of a page's links are looked at to find that many to follow

Checkpoint = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class CrawlPlan:
    """What to crawl."""

    url: str
    max_pages: int = 50
    max_depth: int = 3
    allowed_domains: tuple[str, ...] = ()
    accept_crawl_delay: float | None = None
    """Longest pause, in seconds, that robots.txt may ask for; default: the setting."""


class PageSink(Protocol):
    """Where pages go, one after the other, by number. A page may come again after a crash, with the same content."""

    async def page(self, number: int, fetched: Fetched) -> Sequence[str]:
        """Convert and store a page; its absolute links in their order. Raises ShieldError: the page's outcome."""

    async def failed(self, number: int, url: str, error: ShieldError, counted: bool) -> None:
        """The page gave nothing."""

    async def skipped(self, number: int, url: str, error: ShieldError, counted: bool) -> None:
        """The page was left out on purpose: robots.txt, or a duplicate."""

    async def counts(self, found: int, fetched: int) -> None:
        """Pages known so far, and pages requested so far (`max_pages` bounds the second)."""


class Crawler:
    """Runs crawl jobs; one a process, so that robots.txt and politeness are shared."""

    def __init__(self, engine: AsyncEngine, fetcher: Fetcher, settings: CrawlSettings) -> None:
        self._engine = engine
        self._fetcher = fetcher
        self._settings = settings
        self._robots = Robots(fetcher, settings)

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
        scope = Scope.of(plan.url, plan.allowed_domains)
        frontier = Frontier(self._engine, claim.job.id, claim.fence, max_pages=plan.max_pages, max_queued=self._settings.max_queued)
        if claim.job.retry_of is not None:
            await frontier.adopt(claim.job.retry_of)
        await _Run(self._fetcher, self._robots, self._settings, frontier, plan, scope, sink, checkpoint).crawl()


@dataclass
class _Run:
    """One run of one job."""

    fetcher: Fetcher
    robots: Robots
    settings: CrawlSettings
    frontier: Frontier
    plan: CrawlPlan
    scope: Scope
    sink: PageSink
    checkpoint: Checkpoint
    found: int = 0
    counted: int = 0
    undecided: int = 0
    """Requested or about to be, not yet known whether they count."""

    async def crawl(self) -> None:
        await self.frontier.begin(canonical(self.plan.url))
        self.found, self.counted = await self.frontier.totals()
        await self.sink.counts(self.found, self.counted)
        while rows := await self.frontier.next_level(budget_left=self.counted < self.plan.max_pages):
            with _one_error():
                await self._level(rows)

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
        accept = None if self.plan.accept_crawl_delay is None else timedelta(seconds=self.plan.accept_crawl_delay)
        counted = False

        def sent() -> None:
            nonlocal counted
            counted = True

        async def gate(url: str) -> timedelta | None:
            if url not in self.scope:
                raise PageLeftScope(f"The page redirects to `{origin(url).host}`, out of the allowed domains.")
            return await self.robots.admit(url, accept)

        try:
            if row.url in reached:
                raise PageDuplicate
            answer = Answer(counted=True, fetched=await self.fetcher.fetch(row.url, gate=gate, sent=sent))
        except ShieldError as error:
            answer = Answer(counted, error=error)
        await self.frontier.store(row.number, answer)
        self.undecided -= 1
        self.counted += answer.counted

    async def _hand_over(self, row: Row, *, follow: bool) -> None:
        """Give a stored answer to the sink, then end the page. The sink goes first: it may see a page again, never miss one."""
        answer = await self.frontier.load(row.number)
        error = answer.error
        if answer.fetched is not None:
            try:
                links = await self.sink.page(row.number, answer.fetched)
            except ShieldError as raised:
                if not _about_the_page(raised):
                    raise
                error = raised
            else:
                self.found += await self.frontier.done(row.number, self._links(links), follow=follow)
                return
        assert error is not None  # noqa: S101 -- an answer without content has an error
        if isinstance(error, _SKIPS):
            await self.sink.skipped(row.number, row.url, error, answer.counted)
        else:
            await self.sink.failed(row.number, row.url, error, answer.counted)
        await self.frontier.finish(row.number, SKIPPED if isinstance(error, _SKIPS) else FAILED, error)

    def _links(self, links: Sequence[str]) -> list[str]:
        """The first `max_links` distinct addresses in scope, canonical."""
        kept: dict[str, None] = {}
        for link in links[: _LINKS_EXAMINED * self.settings.max_links]:
            try:
                url = canonical(link)
            except UrlInvalid:
                continue
            if url in self.scope:
                kept[url] = None
            if len(kept) == self.settings.max_links:
                break
        return list(kept)


def _about_the_page(error: ShieldError) -> bool:
    """Whether an error of the sink is this page's outcome, and not the trouble of a dependency or of the job."""
    return isinstance(error, DependencyRejected) or error.code.partition(".")[0] in _PAGE_AREAS


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
