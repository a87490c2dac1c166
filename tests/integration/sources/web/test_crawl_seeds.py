"""Sitemaps, globs and canonical addresses: what a crawl begins with, follows, and takes for the same."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import JobCancelled
from shield.jobs.model import JobId
from shield.sources.crawl import Crawler, CrawlPlan
from shield.sources.fetch import create_fetcher
from tests.integration.sources.web.conftest import web_settings
from tests.integration.sources.web.crawling import Sink, a_claim, a_job, crawl, no_checkpoint, table
from tests.peers.site import Site, page_html


def urlset(*urls: str) -> str:
    return "<urlset>" + "".join(f"<url><loc>{url}</loc></url>" for url in urls) + "</urlset>"


def index(*urls: str) -> str:
    return "<sitemapindex>" + "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in urls) + "</sitemapindex>"


def with_pages(site: Site, *paths: str) -> None:
    for path in paths:
        site.put(path, page_html(path, f"The page at {path}.", []))


class TestSitemaps:
    def mapped(self, site: Site) -> None:
        """A robots.txt that names an index of two sitemaps, one of them gzipped, and one of another site."""
        site.robots = f"User-agent: *\nDisallow: /secret\nSitemap: {site.url}/index.xml\nSitemap: https://other.example/s.xml\n"
        site.put("/index.xml", index(f"{site.url}/one.xml", f"{site.url}/two.xml.gz"), content_type="application/xml")
        site.put("/one.xml", urlset(f"{site.url}/b", f"{site.url}/a", "https://other.example/x", f"{site.url}/secret/s"))
        site.put("/two.xml.gz", gzip.compress(urlset(f"{site.url}/c", f"{site.url}/b").encode()), content_type="application/gzip")
        site.put("/", page_html("Start", "text", ["/linked", "/a"]))
        with_pages(site, "/a", "/b", "/c", "/linked")

    def plan(self, site: Site, **changes: object) -> CrawlPlan:
        return replace(CrawlPlan(f"{site.url}/", max_pages=50, sitemaps=("auto",)), **changes)  # type: ignore[arg-type]

    async def test_their_pages_begin_beside_the_start_page_in_their_order(self, engine: AsyncEngine, site: Site) -> None:
        self.mapped(site)
        sink = Sink()
        rows = await table(engine, await crawl(engine, site, sink, self.plan(site)))
        assert [(row["number"], row["url"].removeprefix(site.url), row["depth"]) for row in rows] == [
            (1, "/", 0), (2, "/b", 0), (3, "/a", 0), (4, "/secret/s", 0), (5, "/c", 0), (6, "/linked", 1),
        ]  # fmt: skip
        assert sink.codes() == {"/secret/s": "robots.denied"}
        assert [row["counted"] for row in rows] == [True, True, True, False, True, True]
        assert site.hits("/sitemap.xml") == 1  # our own guess, which is not there: nothing to tell
        assert sink.totals[-1] == (6, 5)

    async def test_without_links_a_crawl_reads_what_the_sitemaps_list(self, engine: AsyncEngine, site: Site) -> None:
        self.mapped(site)
        sink = Sink()
        await crawl(engine, site, sink, self.plan(site, max_depth=0, exclude=("/a",)))
        assert [url.removeprefix(site.url) for _, url in sink.pages] == ["/", "/b", "/c"]

    async def test_they_do_not_count(self, engine: AsyncEngine, site: Site) -> None:
        self.mapped(site)
        sink = Sink()
        rows = await table(engine, await crawl(engine, site, sink, self.plan(site, max_pages=3)))
        assert sum(row["counted"] for row in rows) == 3
        assert [url.removeprefix(site.url) for _, url in sink.pages] == ["/", "/b", "/a"]

    async def test_one_that_cannot_be_read_is_told_with_its_reason(self, engine: AsyncEngine, site: Site) -> None:
        self.mapped(site)
        site.put("/one.xml", "<html>an error page</html>")
        site.put("/deep.xml", index(f"{site.url}/index.xml"))
        site.put("/index.xml", index(f"{site.url}/one.xml", f"{site.url}/gone.xml", f"{site.url}/deep.xml", f"{site.url}/secret/s.xml"))
        site.bomb("/bomb.xml.gz", megabytes=3)
        sink = Sink()
        plan = self.plan(site, sitemaps=("auto", f"{site.url}/bomb.xml.gz"))
        rows = await table(engine, await crawl(engine, site, sink, plan, max_sitemap_bytes=2 * 1024 * 1024))
        assert sink.codes() == {
            "/one.xml": "crawl.sitemap_invalid",
            "/gone.xml": "page.not_found",
            "/deep.xml": "crawl.sitemap_invalid",
            "/secret/s.xml": "robots.denied",
            "/bomb.xml.gz": "page.too_large",
        }
        assert {row["depth"] for row in rows if row["code"]} == {-1}
        assert sum(row["counted"] for row in rows) == 3
        assert sink.totals[-1] == (3, 3)

    async def test_a_guess_that_leads_to_a_page_or_a_refusal_is_nothing_to_tell(self, engine: AsyncEngine, site: Site) -> None:
        site.put("/", page_html("Start", "text"))
        for answer in ("<!doctype html><title>Every address leads here</title>", None):
            if answer is None:
                site.put("/sitemap.xml", status=403)
            else:
                site.put("/sitemap.xml", answer)
            sink = Sink()
            await crawl(engine, site, sink, self.plan(site))
            assert sink.bad == []

    async def test_limits_on_sitemaps_and_pages_are_kept_and_remembered(self, engine: AsyncEngine, site: Site) -> None:
        self.mapped(site)
        rows = await table(engine, await crawl(engine, site, Sink(), self.plan(site), max_sitemaps=2))
        assert [row["url"].removeprefix(site.url) for row in rows] == ["/", "/b", "/a", "/secret/s", "/linked"]
        assert rows[0]["cut"]
        rows = await table(engine, await crawl(engine, site, Sink(), self.plan(site, max_pages=2), max_queued=1))
        assert [row["url"].removeprefix(site.url) for row in rows] == ["/", "/b", "/a"]

    async def test_a_run_that_stopped_among_them_begins_again_and_one_that_began_reads_none(self, engine: AsyncEngine, site: Site) -> None:
        self.mapped(site)
        expected = await table(engine, await crawl(engine, site, Sink(), self.plan(site)))
        job = await a_job(engine)
        left = 0

        async def checkpoint() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise JobCancelled

        settings = web_settings(site.port)
        crawler = Crawler(engine, create_fetcher(settings), settings.crawl)
        for stop in (2, 4, 6):  # between two sitemaps, before the last one, and after the second page
            left = stop
            with pytest.raises(JobCancelled):
                await crawler.run(await a_claim(engine, job), self.plan(site), Sink(), checkpoint)
        site.log.clear()
        await crawler.run(await a_claim(engine, job), self.plan(site), Sink(), no_checkpoint)
        assert not [path for path in site.pages_log() if ".xml" in path]
        assert await table(engine, job) == expected

    async def test_a_retry_reads_those_that_failed(self, engine: AsyncEngine, site: Site) -> None:
        self.mapped(site)
        site.put("/two.xml.gz", status=500)
        old = await crawl(engine, site, Sink(), self.plan(site))
        self.mapped(site)
        site.log.clear()
        job, sink = await a_job(engine), Sink()
        claim = await a_claim(engine, job)
        settings = web_settings(site.port)
        claim = replace(claim, job=replace(claim.job, retry_of=JobId(old)))
        await Crawler(engine, create_fetcher(settings), settings.crawl).run(claim, self.plan(site), sink, no_checkpoint)
        assert site.pages_log() == ["/two.xml.gz", "/c"]
        assert [url.removeprefix(site.url) for _, url in sink.pages] == ["/c"]
        assert [row["state"] for row in await table(engine, job) if row["depth"] == -1] == ["done"]


class TestGlobs:
    async def test_links_that_are_left_out_are_never_requested(self, engine: AsyncEngine, site: Site) -> None:
        site.put("/welcome", page_html("Start", "text", ["/docs/a", "/docs/private/b", "/blog/c", "/docs/a?print=1"]))
        site.put("/docs/a", page_html("A", "text", ["/docs/d", "/welcome"]))
        with_pages(site, "/docs/d")
        sink = Sink()
        plan = CrawlPlan(f"{site.url}/welcome", include=("/docs/**",), exclude=("/docs/private/**", "**?print=*"))
        rows = await table(engine, await crawl(engine, site, sink, plan))
        assert site.pages_log() == ["/welcome", "/docs/a", "/docs/d"]
        assert len(rows) == 3

    async def test_a_redirect_to_what_is_left_out_is_refused_but_for_the_start_page(self, engine: AsyncEngine, site: Site) -> None:
        site.redirect("/", "/home")
        site.put("/home", page_html("Start", "text", ["/docs/old"]))
        site.redirect("/docs/old", "/logout")
        sink = Sink()
        await crawl(engine, site, sink, CrawlPlan(f"{site.url}/", include=("/docs/**",), exclude=("/logout", "/home")))
        assert site.pages_log() == ["/", "/home", "/docs/old"]
        assert sink.bad == [("skipped", 2, f"{site.url}/docs/old", "page.excluded", True)]


class TestCanonicalAddresses:
    def twins(self, site: Site) -> None:
        site.put("/", page_html("Start", "text", ["/p?from=mail", "/p?from=feed", "/p"]))
        for path in ("/p?from=mail", "/p?from=feed", "/p"):
            site.put(path, f'<link rel="canonical" href="{site.url}/p"><p>The same words.</p><a href="/n">next</a>')

    async def test_pages_that_say_the_same_under_one_name_are_one(self, engine: AsyncEngine, site: Site) -> None:
        self.twins(site)
        sink = Sink()
        await crawl(engine, site, sink)
        assert [url.removeprefix(site.url) for _, url in sink.pages] == ["/", "/p?from=mail"]
        assert sink.codes() == {"/p?from=feed": "page.duplicate", "/p": "page.duplicate", "/n": "page.not_found"}

    async def test_a_name_alone_is_not_believed(self, engine: AsyncEngine, site: Site) -> None:
        home = f'<link rel="canonical" href="{site.url}/">'
        site.put("/", f"{home}<p>Home.</p><a href='/a'>a</a> <a href='/b'>b</a>")
        site.put("/a", f"{home}<p>All about a.</p>")
        site.put("/b", "<p>Home.</p>")
        sink = Sink()
        await crawl(engine, site, sink)
        assert [url.removeprefix(site.url) for _, url in sink.pages] == ["/", "/a", "/b"]
        assert sink.bad == []
