"""Crawls of a site whose pages need their scripts: read by a browser, or said so where there is none."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import create_engine
from shield.settings import PostgresSettings
from shield.sources.crawl import Crawler, CrawlPlan, Renderer
from shield.sources.fetch import Fetched
from tests.integration.sources.browser.conftest import Stage
from tests.integration.sources.web.crawling import Sink, a_claim, a_job, no_checkpoint

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHELL = "<!doctype html><title>App</title><div id=root></div><script>root.innerHTML = `{}`</script>"


def dress(stage: Stage) -> None:
    """A site of four kinds of pages."""
    words = "These are words enough that everyone may read without any script at all"
    stage.site.robots = "User-agent: *\nDisallow: /private"
    stage.site.put("/", f"<p>{words}</p><a href=/app>a</a><a href=/away>b</a><a href=/plain.txt>c</a>")
    stage.site.put("/app", SHELL.format("<p>What the script wrote</p><a href=/deep>on</a>"))
    stage.site.put("/deep", f"<p>{words}, and deeper</p><script>document.body.append('and a script ran')</script>")
    stage.site.put("/away", "<script>location.href = '/private/page'</script>")
    stage.site.put("/plain.txt", "<script>no</script>", content_type="text/plain")
    stage.site.log.clear()


async def crawl(engine: AsyncEngine, stage: Stage, render: str, renderer: Renderer | None) -> Sink:
    sink = Sink()
    crawler = Crawler(engine, stage.fetcher, stage.settings.crawl, renderer)
    plan = CrawlPlan(f"{stage.site.url}/", max_pages=20, render=render)
    await crawler.run(await a_claim(engine, await a_job(engine)), plan, sink, no_checkpoint)
    return sink


def bodies(stage: Stage, sink: Sink) -> dict[str, str]:
    return {url.removeprefix(stage.site.url): body.decode() for url, body in sink.bodies.items()}


async def test_auto_shows_only_pages_that_are_empty_without_their_scripts(dsn: str, stage: Stage) -> None:
    dress(stage)
    engine = create_engine(dsn, PostgresSettings())
    sink = await crawl(engine, stage, "auto", stage.renderer)
    await engine.dispose()
    found = bodies(stage, sink)
    assert set(found) == {"/", "/app", "/deep", "/plain.txt"}
    assert "<p>What the script wrote</p>" in found["/app"]
    assert "and a script ran')" in found["/deep"]  # as it was sent: it has its text
    assert sink.codes() == {"/away": "robots.denied"}  # where its script leads is asked of robots.txt like any other page
    assert sorted(visit.path for visit in stage.site.log) == ["/", "/app", "/away", "/deep", "/plain.txt", "/robots.txt"]


async def test_browser_shows_every_page_of_html(dsn: str, stage: Stage) -> None:
    dress(stage)
    engine = create_engine(dsn, PostgresSettings())
    sink = await crawl(engine, stage, "browser", stage.renderer)
    await engine.dispose()
    found = bodies(stage, sink)
    assert found["/deep"].endswith("deeper</p>and a script ran</body></html>")
    assert found["/plain.txt"] == "<script>no</script>"
    assert [visit.path for visit in stage.site.log].count("/deep") == 1


async def test_without_a_browser_a_page_that_needs_one_says_so(dsn: str, stage: Stage) -> None:
    dress(stage)
    engine = create_engine(dsn, PostgresSettings())
    sink = await crawl(engine, stage, "auto", None)
    assert set(bodies(stage, sink)) == {"/", "/plain.txt"}
    assert sink.codes() == {"/app": "page.needs_browser", "/away": "page.needs_browser"}
    assert all(counted for *_, counted in sink.bad)
    sink = await crawl(engine, stage, "http", None)
    assert set(bodies(stage, sink)) == {"/", "/app", "/away", "/plain.txt"}  # left to the converter, as ever
    await engine.dispose()


async def test_what_a_browser_shows_is_not_shown_again_after_a_crash(dsn: str, stage: Stage) -> None:
    dress(stage)
    engine = create_engine(dsn, PostgresSettings())
    shown = 0

    class Counted:
        async def render(self, page: Fetched, follow: object) -> Fetched:
            nonlocal shown
            shown += 1
            return await stage.renderer.render(page, stage.fetcher.fetch)

    stopped = RuntimeError("the worker dies")

    def die(_: int) -> None:
        raise stopped

    job = await a_job(engine)
    plan = CrawlPlan(f"{stage.site.url}/app", max_pages=1, render="auto")
    crawler = Crawler(engine, stage.fetcher, stage.settings.crawl, Counted())
    with pytest.raises(RuntimeError):
        await crawler.run(await a_claim(engine, job), plan, Sink(at_page=die), no_checkpoint)
    sink = Sink()
    await crawler.run(await a_claim(engine, job), plan, sink, no_checkpoint)
    await engine.dispose()
    assert "What the script wrote" in bodies(stage, sink)["/app"]
    assert shown == 1
