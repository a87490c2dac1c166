"""Real pages in a real Chromium: what is read, what is refused, and what ends a page that would not end."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from shield.errors import EgressDenied, PageRedirectLoop, PageTimeout, PageTooLarge
from shield.settings import Settings
from shield.sources.browser.tab import Tab
from shield.sources.exchange import USER_AGENT
from tests.integration.sources.browser.conftest import Stage, browsers

pytestmark = pytest.mark.asyncio(loop_scope="session")


def script(code: str, body: str = "<div id=root></div>") -> str:
    return f"<!doctype html><html><head><title>App</title></head><body>{body}<script>{code}</script></body></html>"


def short(stage: Stage, **crawl: object) -> Settings:
    return stage.settings.model_copy(update={"crawl": stage.settings.crawl.model_copy(update=crawl)})


class TestReading:
    async def test_a_page_that_only_scripts_fill_is_read_without_asking_for_it_again(self, stage: Stage) -> None:
        stage.site.put("/api", json.dumps({"text": "Read from the server"}), content_type="application/json")
        stage.site.put("/app.js", "alert('stop'); confirm('really?');" + FILL, content_type="text/javascript")
        stage.site.log.clear()
        page = stage.page('<div id=root></div><img src="/i.png"><link rel=icon href="/i.ico"><script src="/app.js"></script>')
        shown = await stage.renderer.render(page, stage.fetcher.fetch)
        assert '<p>Read from the server</p><a href="/more">more</a>' in shown.body.decode()
        assert "<script" not in shown.body.decode()
        assert (shown.url, shown.final_url, shown.status, shown.charset) == (page.url, page.url, 200, "utf-8")
        assert (shown.etag, shown.last_modified) == (None, None)  # they speak of the shell
        assert [visit.path for visit in stage.site.log] == ["/app.js", "/api"]
        assert {visit.headers["User-Agent"] for visit in stage.site.log} == {USER_AGENT}
        assert not any(name.lower().startswith("proxy-") for visit in stage.site.log for name in visit.headers)

    async def test_text_in_shadow_trees_is_read_where_its_host_stands(self, stage: Stage) -> None:
        html = await stage.show(script("root.attachShadow({mode: 'open'}).innerHTML = '<p>In the shadow</p>'"))
        assert '<div id="root"><div><p>In the shadow</p></div></div>' in html

    async def test_a_page_that_never_rests_is_read_as_it_is(self, stage: Stage) -> None:
        async def never(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(60)
            return web.Response()

        stage.site.route("/poll", never)
        browser = stage.settings.browser.model_copy(update={"settle": stage.settings.browser.quiet * 2})
        async with stage.renderer._shared() as chromium:
            page = stage.page(script("root.textContent = 'Shown already'; fetch('/poll')"))
            shown = await Tab(chromium, page, stage.fetcher.fetch, stage.settings.model_copy(update={"browser": browser})).show()
        assert b"Shown already" in shown.body


class TestLeadingOn:
    async def test_where_a_script_or_a_refresh_leads_is_fetched_by_the_fetcher(self, stage: Stage) -> None:
        stage.site.redirect("/away", "/there")
        stage.site.put("/there", '<meta http-equiv="refresh" content="0;url=/end">')
        stage.site.put("/end", "<p>The end of the way</p>")
        stage.site.log.clear()
        shown = await stage.renderer.render(stage.page(script("location.href = '/away'")), stage.fetcher.fetch)
        assert b"The end of the way" in shown.body
        assert (shown.url, shown.final_url) == (f"{stage.site.url}/start", f"{stage.site.url}/end")
        assert [visit.path for visit in stage.site.log] == ["/away", "/there", "/end"]

    async def test_an_address_that_is_refused_leaves_the_page_as_it_stands(self, stage: Stage) -> None:
        away = f"location.href = '{stage.canary.url}/'"
        assert "eight words of text" in await stage.show(script(away, "<p>A page that stays has eight words of text at least</p>"))

    async def test_an_empty_page_that_leads_to_a_refused_address_says_so(self, stage: Stage) -> None:
        with pytest.raises(EgressDenied):
            await stage.show(script(f"location.href = '{stage.canary.url}/'"))
        assert not stage.alarmed()

    async def test_a_page_that_leads_on_and_on_is_a_loop(self, stage: Stage) -> None:
        for number in range(9):
            stage.site.put(f"/on/{number}", script(f"location.href = '/on/{number + 1}'"))
        with pytest.raises(PageRedirectLoop):
            await stage.show(script("location.href = '/on/0'"))


class TestLimits:
    async def test_a_script_without_end_is_a_timeout_and_its_process_goes(self, stage: Stage) -> None:
        await stage.show("<p>warm</p>")
        before = len(browsers())
        async with stage.renderer._shared() as chromium:
            endless = Tab(
                chromium,
                stage.page(script("while (true);")),
                stage.fetcher.fetch,
                short(stage, page_timeout=stage.settings.browser.quiet * 5),
            )
            with pytest.raises(PageTimeout):
                await endless.show()
        assert "still here" in await stage.show(script("root.textContent = 'still here'"))
        async with asyncio.timeout(20):
            while len(browsers()) > before:
                await asyncio.sleep(0.05)

    async def test_a_tree_that_grows_too_large_is_refused(self, stage: Stage) -> None:
        with pytest.raises(PageTooLarge):
            await stage.show(script("root.hidden = true; root.textContent = 'x'.repeat(3e6)"))

    async def test_scripts_that_load_too_much_are_cut_off(self, stage: Stage) -> None:
        stage.site.put("/big", bytes(1_000_000), content_type="application/octet-stream")
        browser = stage.settings.browser.model_copy(update={"max_transfer": 300_000})
        async with stage.renderer._shared() as chromium:
            page = stage.page(script("fetch('/big').then(r => r.blob()).then(() => root.textContent = 'all of it')"))
            with pytest.raises(PageTooLarge):
                await Tab(chromium, page, stage.fetcher.fetch, stage.settings.model_copy(update={"browser": browser})).show()

    async def test_requests_beyond_the_limit_fail(self, stage: Stage) -> None:
        stage.site.log.clear()
        browser = stage.settings.browser.model_copy(update={"max_requests": 3})
        code = "Promise.allSettled([1,2,3,4,5,6].map(n => fetch('/api?' + n))).then(all => root.textContent = 'settled')"
        async with stage.renderer._shared() as chromium:
            shown = await Tab(
                chromium, stage.page(script(code)), stage.fetcher.fetch, stage.settings.model_copy(update={"browser": browser})
            ).show()
        assert b"settled" in shown.body
        assert len(stage.site.log) == 3


FILL = """
fetch('/api').then(answer => answer.json()).then(data => {
  const text = document.createElement('p'); text.textContent = data.text;
  const link = document.createElement('a'); link.href = '/more'; link.textContent = 'more';
  document.getElementById('root').append(text, link);
});
"""
