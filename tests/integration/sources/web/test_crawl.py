"""The crawl engine over a real site and a real PostgreSQL: exact, ordered, and unmoved by crashes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import CircuitOpen, DocumentEmpty
from shield.jobs.model import JobId
from shield.sources.crawl import Crawler, CrawlPlan
from shield.sources.fetch import Fetched, create_fetcher
from tests.integration.sources.web.conftest import web_settings
from tests.integration.sources.web.crawling import EPOCH, Sink, a_claim, a_job, crawl, no_checkpoint, table
from tests.peers.site import Site, page_html


async def test_a_site_is_read_breadth_first_each_page_once(engine: AsyncEngine, tree: Site) -> None:
    sink = Sink()
    job = await crawl(engine, tree, sink)
    assert sink.pages == [(1, f"{tree.url}/")] + [(n + 1, f"{tree.url}/page/{n}") for n in range(1, 24)]
    assert sorted(tree.pages_log()) == sorted(["/", *(f"/page/{n}" for n in range(1, 24))])
    rows = await table(engine, job)
    assert {row["state"] for row in rows} == {"done"}
    assert [row["depth"] for row in rows] == sorted(row["depth"] for row in rows)
    assert all(row["body"] is None and row["counted"] for row in rows)
    assert sink.totals[-1] == (24, 24)
    assert b"Station 7 stands" in sink.bodies[f"{tree.url}/page/7"]


@pytest.mark.parametrize("pages", [1, 2, 13, 23, 24, 25])
async def test_max_pages_is_exact(engine: AsyncEngine, tree: Site, pages: int) -> None:
    sink = Sink()
    job = await crawl(engine, tree, sink, CrawlPlan(f"{tree.url}/", max_pages=pages, max_depth=9), per_host=8)
    assert len(tree.pages_log()) == min(pages, 24)
    assert [row["number"] for row in await table(engine, job) if row["counted"]] == list(range(1, min(pages, 24) + 1))


async def test_failing_pages_count_and_refused_ones_do_not(engine: AsyncEngine) -> None:
    async with Site(pages=30, fan=29, robots="User-agent: *\nDisallow: /page/2\n") as site:  # 2 and 20 to 29
        for n in (1, 3):
            site.put(f"/page/{n}", status=500)
        sink = Sink()
        job = await crawl(engine, site, sink, CrawlPlan(f"{site.url}/", max_pages=12, max_depth=3), per_host=8)
        rows = await table(engine, job)
        assert sum(row["counted"] for row in rows) == len(site.pages_log()) == 12
        assert ("skipped", 3, f"{site.url}/page/2", "robots.denied", False) in sink.bad
        assert ("failed", 2, f"{site.url}/page/1", "page.http_error", True) in sink.bad
        assert [row["number"] for row in rows if row["counted"]] == [1, 2, *range(4, 14)]


async def test_the_depth_is_bounded(engine: AsyncEngine, tree: Site) -> None:
    sink = Sink()
    await crawl(engine, tree, sink, CrawlPlan(f"{tree.url}/", max_depth=1))
    assert [url for _, url in sink.pages] == [f"{tree.url}/", *(f"{tree.url}/page/{n}" for n in (1, 2, 3))]
    sink = Sink()
    await crawl(engine, tree, sink, CrawlPlan(f"{tree.url}/page/5", max_depth=0))
    assert sink.pages == [(1, f"{tree.url}/page/5")]


async def test_order_and_table_are_the_same_however_fast_pages_come(engine: AsyncEngine, tree: Site) -> None:
    tables = []
    for seed in range(3):
        chance = random.Random(seed)  # noqa: S311
        tree.delay = lambda _, chance=chance, most=seed: chance.random() * 0.02 * most
        job = await crawl(engine, tree, Sink(), CrawlPlan(f"{tree.url}/", max_pages=20, max_depth=9), per_host=8)
        tables.append(await table(engine, job))
    assert tables[0] == tables[1] == tables[2]


async def test_links_out_of_scope_and_beyond_the_bound_are_not_followed(engine: AsyncEngine) -> None:
    async with Site() as site, Site(pages=5) as other:
        links = [other.url, "http://example.com/", "javascript:alert(1)", "http://u@127.0.0.1/", *(f"/p{n}" for n in range(10)), "/p1#x"]
        site.put("/", page_html("Start", "text", links))
        sink = Sink()
        job = await crawl(engine, site, sink, max_links=4)
        rows = await table(engine, job)
        assert rows[0]["links"] == [f"{site.url}/p{n}" for n in range(4)]
        assert site.pages_log() == ["/", "/p0", "/p1", "/p2", "/p3"]
        assert other.log == []


async def test_allowed_domains_open_another_host(engine: AsyncEngine) -> None:
    async with Site() as site, Site(pages=2) as other:
        site.put("/", page_html("Start", "text", [other.url + "/"]))
        settings = web_settings(site.port, other.port)
        plan = CrawlPlan(f"{site.url}/", allowed_domains=(f"127.0.0.1:{other.port}",))
        sink = Sink()
        crawler = Crawler(engine, create_fetcher(settings), settings.crawl)
        await crawler.run(await a_claim(engine, await a_job(engine)), plan, sink, no_checkpoint)
        assert [url for _, url in sink.pages] == [f"{site.url}/", f"{other.url}/", f"{other.url}/page/1"]


async def test_the_frontier_is_bounded(engine: AsyncEngine) -> None:
    async with Site(pages=100, fan=99) as site:
        job = await crawl(engine, site, Sink(), CrawlPlan(f"{site.url}/", max_pages=2, max_depth=5), max_queued=10)
        assert len(await table(engine, job)) == 12


class TestRedirectsAndDuplicates:
    async def test_the_lower_number_wins_and_both_count(self, engine: AsyncEngine) -> None:
        async with Site() as site:
            site.put("/", page_html("Start", "text", ["/old", "/new", "/third"]))
            site.redirect("/old", "/new")
            site.put("/new", page_html("New", "text", ["/deeper"]))
            site.put("/third", page_html("Third", "text", ["/older"]))
            site.put("/deeper", "deeper")
            site.redirect("/older", "/new")
            sink = Sink()
            await crawl(engine, site, sink)
            assert [url for _, url in sink.pages] == [f"{site.url}{path}" for path in ("/", "/old", "/third", "/deeper")]
            assert [(kind, url[len(site.url) :], code, counted) for kind, _, url, code, counted in sink.bad] == [
                ("skipped", "/new", "page.duplicate", True),
                ("skipped", "/older", "page.duplicate", True),
            ]

    async def test_an_address_that_a_shallower_redirect_reached_is_not_requested(self, engine: AsyncEngine) -> None:
        async with Site() as site:
            site.put("/", page_html("Start", "text", ["/links", "/old"]))
            site.put("/links", page_html("Links", "text", ["/new"]))  # found before /old is known to lead there
            site.redirect("/old", "/new")
            site.put("/new", page_html("New", "text", ["/new"]))
            sink = Sink()
            await crawl(engine, site, sink)
            assert site.hits("/new") == 1
            assert sink.bad == [("skipped", 4, f"{site.url}/new", "page.duplicate", False)]

    async def test_each_broken_page_has_its_own_reason(self, engine: AsyncEngine) -> None:
        async with Site() as site, Site(pages=3) as other:
            paths = ["/loop", "/away", "/gone", "/slow", "/big", "/image", "/private", "/throttled", "/secret", "/fine"]
            site.robots = "User-agent: *\nDisallow: /secret"
            site.put("/", page_html("Start", "text", paths))
            site.redirect("/loop", "/loop")
            site.redirect("/away", other.url)
            site.endless("/slow")
            site.bomb("/big", megabytes=9)
            site.put("/image", b"", content_type="image/png")
            site.redirect("/private", "http://169.254.169.254/latest")
            site.throttle("/throttled", times=9, retry_after="9")
            site.put("/fine", "fine")
            sink = Sink()
            await crawl(engine, site, sink)
            assert sink.codes() == {
                "/loop": "page.redirect_loop",
                "/away": "page.left_scope",
                "/gone": "page.not_found",
                "/slow": "page.timeout",
                "/big": "page.too_large",
                "/image": "page.type_unsupported",
                "/private": "page.left_scope",
                "/throttled": "page.throttled",
                "/secret": "robots.denied",
            }
            assert [url for _, url in sink.pages] == [f"{site.url}/", f"{site.url}/fine"]
            assert other.log == []


class TestRefusedStarts:
    @pytest.mark.parametrize(
        ("robots", "kind", "code"), [(500, "failed", "robots.unavailable"), ("User-agent: *\nDisallow: /", "skipped", "robots.denied")]
    )
    async def test_a_start_that_robots_refuses_is_an_outcome_and_no_request(
        self, engine: AsyncEngine, robots: str | int, kind: str, code: str
    ) -> None:
        async with Site(pages=5, robots=robots) as site:
            sink = Sink()
            await crawl(engine, site, sink)
            assert sink.bad == [(kind, 1, f"{site.url}/", code, False)]
            assert site.pages_log() == []
            assert sink.pages == []

    async def test_a_private_start_is_an_outcome_and_no_request(self, engine: AsyncEngine) -> None:
        async with Site(pages=5) as site:
            sink = Sink()
            await crawl(engine, site, sink, CrawlPlan("http://10.0.0.1/"))
            assert [bad[3:] for bad in sink.bad] == [("egress.denied", False)]

    async def test_a_crawl_delay_is_refused_unless_accepted(self, engine: AsyncEngine) -> None:
        async with Site(pages=1, robots="User-agent: *\nCrawl-delay: 0.2") as site:
            sink = Sink()
            await crawl(engine, site, sink, CrawlPlan(f"{site.url}/", accept_crawl_delay=0.1))
            assert [bad[3] for bad in sink.bad] == ["robots.delay_too_long"]
            sink = Sink()
            await crawl(engine, site, sink, CrawlPlan(f"{site.url}/", accept_crawl_delay=0.2))
            assert len(sink.pages) == 1


class TestTheSinkRefuses:
    async def test_what_is_the_pages_fault_is_its_outcome(self, engine: AsyncEngine, tree: Site) -> None:
        sink = Sink(raises={"page/2": DocumentEmpty()})
        job = await crawl(engine, tree, sink)
        assert ("failed", 3, f"{tree.url}/page/2", "document.empty", True) in sink.bad
        row = (await table(engine, job))[2]
        assert (row["state"], row["code"], row["body"]) == ("failed", "document.empty", None)

    async def test_what_is_not_ends_the_run_and_the_page_is_handed_over_again(self, engine: AsyncEngine, tree: Site) -> None:
        sink = Sink(raises={"page/2": CircuitOpen()})
        job = await a_job(engine)
        with pytest.raises(CircuitOpen):
            await crawl(engine, tree, sink, job=job)
        sink.raises.clear()
        await crawl(engine, tree, sink, job=job)
        assert len({number for number, _ in sink.pages}) == len(sink.pages) == 24
        assert tree.hits("/page/2") == 1


async def test_a_retry_starts_from_what_the_old_job_finished(engine: AsyncEngine, tree: Site) -> None:
    plan = CrawlPlan(f"{tree.url}/", max_pages=10, max_depth=9)
    for n in (2, 5):
        tree.put(f"/page/{n}", status=500)
    old = await crawl(engine, tree, Sink(), plan)
    tree._routes.clear()
    tree.log.clear()
    job, sink = await a_job(engine), Sink()
    claim = await a_claim(engine, job)
    claim = replace(claim, job=replace(claim.job, retry_of=JobId(old)))
    settings = web_settings(tree.port)
    for _ in range(2):  # the second run finds its own pages and adopts nothing
        await Crawler(engine, create_fetcher(settings), settings.crawl).run(claim, plan, sink, no_checkpoint)
    assert sorted(tree.pages_log()) == ["/page/2", "/page/5"]
    assert [url for _, url in sink.pages] == [f"{tree.url}/page/2", f"{tree.url}/page/5"]
    rows = await table(engine, job)
    assert sum(row["counted"] for row in rows) == 10
    assert all((row["state"] == "done") == row["counted"] for row in rows)
    assert {row["url"] for row in rows} > {row["url"] for row in await table(engine, old)}


async def test_hostile_headers_and_links_reach_the_database_clean(engine: AsyncEngine) -> None:
    class Rude(Sink):
        def links(self, fetched: Fetched) -> Sequence[str]:
            if fetched.url.endswith("/b"):
                raise DocumentEmpty("nul \0 and \ud800 surrogate")
            return ["http://127.0.0.1/\0", "\ud800", "/relative", f"{site.url}/a\udfff", *[f"{site.url}/x?{'y' * 5000}"], f"{site.url}/b"]

    async with Site() as site:
        site.put("/", "x")
        site.put("/b", "x")
        job = await crawl(engine, site, Rude())
        rows = await table(engine, job)
        assert [row["url"] for row in rows] == [f"{site.url}/", f"{site.url}/b"]
        assert rows[1]["message"] == "nul  and ? surrogate"


async def test_a_large_body_survives_the_way_through_the_table(engine: AsyncEngine) -> None:
    async with Site() as site:
        body = random.Random(1).randbytes(3 * 1024 * 1024)  # noqa: S311
        site.put("/", body, content_type="text/plain; charset=ISO-8859-1")
        seen: list[Fetched] = []

        class Keep(Sink):
            def links(self, fetched: Fetched) -> Sequence[str]:
                seen.append(fetched)
                return []

        await crawl(engine, site, Keep())
        assert replace(seen[0], fetched_at=EPOCH) == Fetched(
            f"{site.url}/", f"{site.url}/", 200, "text/plain", "iso-8859-1", body, None, None, EPOCH
        )
