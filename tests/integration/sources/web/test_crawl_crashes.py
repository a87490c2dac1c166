"""Crawls that are killed, taken over and stopped: the next run ends as if nothing had happened."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.tables import jobs
from shield.errors import JobCancelled, LeaseLost
from shield.jobs.model import Claim
from shield.sources.crawl import Crawler, CrawlPlan, Page
from shield.sources.fetch import Fetched, create_fetcher
from tests.integration.sources.web.conftest import web_settings
from tests.integration.sources.web.crawling import Sink, a_claim, a_job, crawl, no_checkpoint, table
from tests.peers.site import Site


class TestCrashes:
    """A run is killed, another takes the job over; `statement` counts SQL statements, so every step is met."""

    PLAN_PAGES = 10

    async def _killed(self, engine: AsyncEngine, site: Site, job: UUID, sink: Sink, statements: int) -> bool:
        """Run until that many SQL statements were executed; whether it was killed."""
        task = asyncio.current_task()
        assert task is not None
        left = statements

        def count(*_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                runner.cancel()

        runner = asyncio.create_task(crawl(engine, site, sink, self._plan(site), job, per_host=8))
        event.listen(engine.sync_engine, "after_cursor_execute", count)
        try:
            await runner
        except asyncio.CancelledError:
            return True
        finally:
            event.remove(engine.sync_engine, "after_cursor_execute", count)
        return False

    def _plan(self, site: Site) -> CrawlPlan:
        return CrawlPlan(f"{site.url}/", max_pages=self.PLAN_PAGES, max_depth=9)

    def _spoil(self, site: Site) -> None:
        site.redirect("/page/2", "/page/1")
        site.put("/page/3", status=500)
        site.robots = "User-agent: *\nDisallow: /page/4"

    @pytest.mark.parametrize("first", range(5, 95, 15))
    async def test_a_killed_run_is_finished_by_the_next_as_if_nothing_had_happened(
        self, engine: AsyncEngine, tree: Site, first: int
    ) -> None:
        self._spoil(tree)
        calm = Sink()
        expected = await table(engine, await crawl(engine, tree, calm, self._plan(tree), per_host=8))
        tree.log.clear()

        job, sink = await a_job(engine), Sink()
        killed = await self._killed(engine, tree, job, sink, first)
        before = await table(engine, job)
        stored = {row["url"] for row in before if row["state"] != "queued"}
        requested = tree.pages_log()
        tree.log.clear()
        if killed:
            await crawl(engine, tree, sink, self._plan(tree), job)

        assert await table(engine, job) == expected
        again = [f"{tree.url}{path}" for path in tree.pages_log()]
        reached_by_redirect = {f"{tree.url}/page/1"}
        assert not (set(again) - reached_by_redirect) & stored
        assert len(requested) == len(set(requested) | {"/page/1"}) or requested.count("/page/1") <= 2
        assert dict(sink.pages) == dict(calm.pages)
        assert set(sink.bad) == set(calm.bad)
        assert sink.totals[-1] == calm.totals[-1]

    @pytest.mark.parametrize("statements", [17, 22, 27])
    async def test_a_job_that_is_killed_again_and_again_still_ends_the_same(self, engine: AsyncEngine, tree: Site, statements: int) -> None:
        self._spoil(tree)
        expected = await table(engine, await crawl(engine, tree, Sink(), self._plan(tree)))
        job, kills = await a_job(engine), 0
        while await self._killed(engine, tree, job, Sink(), statements):
            kills += 1
            assert kills < 50
        assert kills > 1
        assert await table(engine, job) == expected

    async def test_a_run_that_lost_its_lease_writes_nothing(self, engine: AsyncEngine, tree: Site) -> None:
        job = await a_job(engine)
        settings = web_settings(tree.port)
        old, new = await a_claim(engine, job), await a_claim(engine, job)
        crawler = Crawler(engine, create_fetcher(settings), settings.crawl)
        with pytest.raises(LeaseLost):
            await crawler.run(old, self._plan(tree), Sink(), no_checkpoint)
        assert await table(engine, job) == []
        await crawler.run(new, self._plan(tree), Sink(), no_checkpoint)

    @pytest.mark.parametrize("at", [1, 2, 9])
    async def test_a_take_over_in_the_middle_stops_the_old_run(self, engine: AsyncEngine, tree: Site, at: int) -> None:
        job = await a_job(engine)
        taken: list[asyncio.Task[Claim]] = []

        def take_over(number: int) -> None:
            if number == at:
                taken.append(asyncio.create_task(a_claim(engine, job)))

        class Slow(Sink):
            async def store(self, number: int, fetched: Fetched, page: Page) -> tuple[UUID, int]:
                document = await super().store(number, fetched, page)
                if taken:
                    await taken[0]
                return document

        with pytest.raises(LeaseLost):
            await crawl(engine, tree, Slow(at_page=take_over), self._plan(tree), job)
        assert {row["state"] for row in await table(engine, job) if row["number"] >= at} <= {"queued", "fetched"}

    async def test_a_job_that_has_ended_is_not_written_to(self, engine: AsyncEngine, tree: Site) -> None:
        job = await a_job(engine)
        claim = await a_claim(engine, job)
        async with engine.begin() as connection:
            await connection.execute(sa.update(jobs).where(jobs.c.id == job).values(status="cancelled", finished_at=sa.func.now()))
        settings = web_settings(tree.port)
        with pytest.raises(LeaseLost):
            await Crawler(engine, create_fetcher(settings), settings.crawl).run(claim, self._plan(tree), Sink(), no_checkpoint)

    async def test_the_checkpoint_stops_the_run_with_its_own_error(self, engine: AsyncEngine, tree: Site) -> None:
        job, seen = await a_job(engine), 0

        async def checkpoint() -> None:
            nonlocal seen
            seen += 1
            if seen == 5:
                raise JobCancelled

        settings = web_settings(tree.port)
        sink = Sink()
        with pytest.raises(JobCancelled):
            await Crawler(engine, create_fetcher(settings), settings.crawl).run(
                await a_claim(engine, job), self._plan(tree), sink, checkpoint
            )
        assert len(sink.pages) == 4
        assert asyncio.all_tasks() == {asyncio.current_task()} | {
            t for t in asyncio.all_tasks() if "Site" in repr(t) or "aiohttp" in repr(t)
        }
