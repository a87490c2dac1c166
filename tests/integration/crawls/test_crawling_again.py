"""Crawling a site again: what did not change costs nothing, what is gone goes, and a crawl that saw too little removes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from shield.database.fence import JobFence
from shield.jobs.model import Job, OutcomeStatus
from shield.settings import Settings
from tests.integration.crawls.conftest import ME, Crawls
from tests.integration.sources.web.conftest import web_settings
from tests.peers.site import Site, page_html

pytestmark = pytest.mark.asyncio(loop_scope="module")

V1 = '"v1"'


def put(site: Site, path: str, text: str, links: list[str] | None = None, **headers: Any) -> None:
    site.put(path, page_html(path, f"This page says {text} and a few words more.", links), **headers)


def small(site: Site) -> None:
    """/ -> /a -> /deep, / -> /b; all with validators but /b."""
    put(site, "/", "welcome", ["/a", "/b"], ETag=V1)
    put(site, "/a", "alpha", ["/deep"], Last_Modified="Tue, 01 Jul 2025 10:00:00 GMT")
    put(site, "/b", "beta")
    put(site, "/deep", "delta", ETag='W/"d"')


async def crawl(crawls: Crawls, site: Site, settings: Settings | None = None, **spec: Any) -> Job:
    """A crawl to its end."""
    job = await crawls.run(await crawls.job(f"{site.url}/", **spec), settings or web_settings(site.port))
    assert job is not None
    return job


class TestUnchanged:
    async def test_pages_that_did_not_change_are_neither_sent_nor_converted_nor_embedded(self, crawls: Crawls) -> None:
        async with Site() as site:
            small(site)
            first = await crawl(crawls, site)
            before, embedded = await crawls.hash(), await crawls.sql("SELECT * FROM embeddings ORDER BY text_hash")
            assert {o.status for o in await crawls.outcomes(first)} == {OutcomeStatus.STORED}
            site.log.clear()
            crawls.converter.asked = 0
            second = await crawl(crawls, site)
            assert {visit.path: visit.status for visit in site.log if visit.path != "/robots.txt"} == {
                "/": 304,
                "/a": 304,
                "/b": 200,
                "/deep": 304,
            }
            assert crawls.converter.asked == 0
            outcomes = await crawls.outcomes(second)
            assert [(o.source.removeprefix(site.url), o.status, o.counted) for o in outcomes] == [
                (path, OutcomeStatus.UNCHANGED, True) for path in ("/", "/a", "/b", "/deep")
            ]
            assert [o.document_id for o in outcomes] == [o.document_id for o in await crawls.outcomes(first)]
            assert all(o.chunks for o in outcomes)
            assert await crawls.hash() == before
            assert await crawls.sql("SELECT * FROM embeddings ORDER BY text_hash") == embedded
            assert (second.outcome, second.progress.documents) == ("complete", 4)

    async def test_a_page_that_changed_is_stored_and_keeps_the_rest(self, crawls: Crawls) -> None:
        async with Site() as site:
            small(site)
            await crawl(crawls, site)
            put(site, "/a", "omega", ["/deep", "/new"], ETag='"v2"')
            put(site, "/new", "nu")
            table = await crawls.table(await crawl(crawls, site), site.url)
            assert table == {"/": "unchanged", "/a": "stored", "/b": "unchanged", "/deep": "unchanged", "/new": "stored"}

    async def test_refresh_asks_for_everything_anew(self, crawls: Crawls) -> None:
        async with Site() as site:
            small(site)
            await crawl(crawls, site)
            site.log.clear()
            crawls.converter.asked = 0
            job = await crawl(crawls, site, refresh=True)
            assert not [visit for visit in site.log if "If-None-Match" in visit.headers or "If-Modified-Since" in visit.headers]
            assert crawls.converter.asked == 4
            assert {o.status for o in await crawls.outcomes(job)} == {OutcomeStatus.UNCHANGED}  # its content is what it was

    @pytest.mark.parametrize("change", ["metadata", "globs", "deleted", "replaced", "converter"])
    async def test_what_no_longer_holds_is_asked_for_anew(self, crawls: Crawls, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async with Site() as site:
            small(site)
            first = await crawl(crawls, site, max_pages=1)
            document = (await crawls.outcomes(first))[0].document_id
            spec: dict[str, Any] = {"max_pages": 1}
            match change:
                case "metadata":
                    spec["metadata"] = {"team": "a"}
                case "globs":
                    spec["exclude"] = ["/b"]
                case "deleted":
                    await crawls.sql("UPDATE documents SET live_revision = NULL, content_hash = NULL WHERE id = :id", id=document)
                case "replaced":
                    await crawls.sql("UPDATE web_pages SET revision = revision - 1")
                case _:
                    monkeypatch.setattr("shield.sources.files.child.REVISION", 99)
            crawls.converter.asked = 0
            await crawl(crawls, site, **spec)
            assert crawls.converter.asked == 1

    async def test_a_page_reached_by_redirects_is_asked_at_its_end(self, crawls: Crawls) -> None:
        async with Site() as site:
            put(site, "/", "welcome", ["/old"], ETag=V1)
            site.redirect("/old", "/new")
            put(site, "/new", "the moved page", ETag='"n"')
            await crawl(crawls, site)
            site.log.clear()
            table = await crawls.table(await crawl(crawls, site), site.url)
            assert table == {"/": "unchanged", "/new": "unchanged"}
            assert [(v.path, v.headers.get("If-None-Match")) for v in site.log if "robots" not in v.path] == [
                ("/", V1),
                ("/old", None),
                ("/new", '"n"'),
            ]

    async def test_a_document_deleted_while_the_site_says_unchanged_is_not_brought_back(self, crawls: Crawls) -> None:
        async with Site() as site:
            put(site, "/", "welcome", ETag=V1)
            await crawl(crawls, site)
            claim = await crawls.job(f"{site.url}/")
            site.delay = lambda _: 0.3
            site.log.clear()
            run = asyncio.create_task(crawls.run(claim, web_settings(site.port)))
            await site.visited(2)
            await crawls.sql("UPDATE documents SET deleting = true, live_revision = NULL")
            job = await run
            assert job is not None
            assert await crawls.table(job, site.url) == {"/": "failed document.deleting"}

    async def test_deleting_a_document_forgets_its_page(self, crawls: Crawls) -> None:
        async with Site() as site:
            small(site)
            job = await crawl(crawls, site)
            document = (await crawls.outcomes(job))[1].document_id
            assert document is not None
            claim = await crawls.job(f"{site.url}/")
            fence = JobFence(claim.job.id, claim.fence)
            deletion = crawls.tools.deletion
            assert not await deletion.begin(crawls.base, document, fence)
            proof = await deletion.finish(crawls.base, document, fence)
            assert proof.hits == 0, proof.stores
            assert [row[0].removeprefix(site.url) for row in await crawls.sql("SELECT url FROM web_pages ORDER BY url")] == [
                "/",
                "/b",
                "/deep",
            ]
            await crawls.run(claim, web_settings(site.port))
            assert len(await crawls.sources()) == 4


class TestVanished:
    async def test_pages_that_are_gone_or_that_nothing_leads_to_go(self, crawls: Crawls) -> None:
        async with Site() as site:
            small(site)
            await crawl(crawls, site)
            put(site, "/", "welcome", ["/a", "/b"], ETag='"v2"')
            put(site, "/a", "alpha, and no link any more")
            site.put("/b", status=410)
            job = await crawl(crawls, site, remove_vanished=True)
            outcomes = {o.number: o for o in await crawls.outcomes(job)}
            assert [(o.source.removeprefix(site.url), str(o.status), o.code) for o in outcomes.values()] == [
                ("/", "unchanged", None),  # only a link is another
                ("/a", "stored", None),
                ("/b", "failed", "page.not_found"),
                ("/b", "deleted", None),
                ("/deep", "deleted", None),
            ]
            assert outcomes[3].message == "The site answered 410 (Gone)."
            assert "no such page" in (outcomes[4].message or "")
            assert "leads to this page" in (outcomes[5].message or "")
            assert await crawls.sources() == [f"{site.url}/", f"{site.url}/a"]
            assert job.progress.documents == 2
            proofs = await crawls.sql("SELECT hits FROM deletion_proofs WHERE job_id = :job", job=job.id)
            assert [row[0] for row in proofs] == [0, 0]
            assert len(await crawls.sql("SELECT 1 FROM audit_records WHERE action = 'delete' AND principal = 'ada'")) == 2

    async def test_nothing_goes_unless_it_is_asked_for(self, crawls: Crawls) -> None:
        async with Site() as site:
            small(site)
            await crawl(crawls, site)
            put(site, "/", "welcome")
            await crawl(crawls, site)
            assert len(await crawls.sources()) == 4

    async def test_a_crawl_that_did_not_see_everything_removes_nothing_and_says_why(self, crawls: Crawls) -> None:
        async with Site() as site:
            small(site)
            await crawl(crawls, site)
            troubles: list[tuple[str, Callable[[], None], dict[str, Any]]] = [
                ("max_pages was used up", lambda: None, {"max_pages": 2}),
                ("a page failed in a way that may pass", lambda: site.put("/b", status=500), {}),
                ("a page failed in a way that may pass", lambda: site.throttle("/b", times=9, retry_after="9"), {}),
                ("a page that was read before gave nothing", lambda: site.put("/b", status=403), {}),
                ("a page that was read before gave nothing", lambda: site.redirect("/b", "https://example.com/"), {}),
                ("a sitemap could not be read", lambda: None, {"sitemaps": [f"{site.url}/sitemap.xml"]}),
                ("more links or sitemap entries", lambda: put(site, "/a", "alpha", ["/a", "/b", "/c"]), {}),
                ("its start page gave nothing", lambda: site.put("/", status=404), {}),
            ]
            for why, happens, spec in troubles:
                small(site)
                put(site, "/a", "alpha, and no link any more")
                happens()
                job = await crawl(crawls, site, web_settings(site.port, max_links=3), remove_vanished=True, **spec)
                told = (await crawls.outcomes(job))[-1]
                assert (told.status, told.code) == (OutcomeStatus.SKIPPED, "crawl.incomplete")
                assert why in (told.message or "")
                assert len(await crawls.sources()) == 4

    async def test_only_what_crawls_from_this_start_page_stored_may_be_missed(self, crawls: Crawls) -> None:
        async with Site() as site:
            small(site)
            await crawl(crawls, site)  # stores all, last seen from /
            other = await crawls.job(f"{site.url}/b", remove_vanished=True)
            await crawls.run(other, web_settings(site.port))
            assert len(await crawls.sources()) == 4
            await crawl(crawls, site, remove_vanished=True, exclude=["/a"])  # what the globs leave out is not missed either
            assert await crawls.sources() == [f"{site.url}{path}" for path in ("/", "/a", "/b")]

    async def test_a_removal_that_is_cut_off_is_finished_by_the_next_run(self, crawls: Crawls, monkeypatch: pytest.MonkeyPatch) -> None:
        async with Site() as site:
            small(site)
            await crawl(crawls, site)
            put(site, "/", "welcome", ["/b"])
            settings = web_settings(site.port)
            claim = await crawls.job(f"{site.url}/", remove_vanished=True)
            deletion = type(crawls.tools.deletion)
            for step in ("begin_all", "finish_all", "_what_to_look_for", "_remove_points"):
                with monkeypatch.context() as patched:
                    patched.setattr(deletion, step, dies)
                    with pytest.raises(BaseExceptionGroup) as killed:
                        await crawls.run(claim, settings)
                    assert killed.group_contains(Killed)
                claim = await crawls.again(claim)
            job = await crawls.run(claim, settings)
            assert job is not None
            assert await crawls.table(job, site.url) == {"/": "stored", "/b": "unchanged", "/a": "deleted", "/deep": "deleted"}
            assert await crawls.sources() == [f"{site.url}/", f"{site.url}/b"]

    async def test_with_a_graph_the_job_waits_until_it_let_go(self, crawls: Crawls) -> None:
        async with Site() as site:
            small(site)
            await crawl(crawls, site)
            await crawls.sql("UPDATE knowledge_bases SET graph = true")
            for source in ("/deep", "/a"):
                await crawls.sql(
                    "INSERT INTO graph_members SELECT knowledge_base_id, 'key' || source, id, 1 FROM documents WHERE source = :source",
                    source=site.url + source,
                )
            put(site, "/", "welcome", ["/b"])
            claim = await crawls.job(f"{site.url}/", remove_vanished=True)
            job = await crawls.run(claim, web_settings(site.port))
            assert job is not None
            assert job.parked
            assert await crawls.sources() == [f"{site.url}/", f"{site.url}/b"]
            assert (await crawls.table(job, site.url))["/deep"] == "skipped page.vanished"
            # The graph lets go of one, gives the other up, and takes in what is new.
            await crawls.sql(
                "UPDATE graph_tasks SET status = 'failed', code = 'document.graph_failed', message = 'No.' WHERE graph_key LIKE '%/a'"
            )
            await crawls.sql("UPDATE graph_tasks SET status = 'done' WHERE status = 'pending'")
            await crawls.jobs.unpark()
            again = await crawls.jobs.claim(claim.job.id, ME)
            assert again is not None
            job = await crawls.run(again, web_settings(site.port))
            assert job is not None
            assert await crawls.table(job, site.url) == {
                "/": "stored",
                "/b": "unchanged",
                "/a": "failed document.graph_failed",
                "/deep": "deleted",
            }
            assert job.outcome == "partial"


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


async def dies(*_: Any, **__: Any) -> Any:
    raise Killed
