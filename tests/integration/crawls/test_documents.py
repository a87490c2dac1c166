"""Many documents in one job: outcomes, numbers, crashes, and what a retry may mend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from shield.app.run_job import exit_of
from shield.errors import Exit
from shield.jobs.events import JobEvents
from shield.jobs.model import DOCUMENTS, FLEET, Claim, Job, JobKind, JobRequest, OutcomeStatus, Status, WorkerId
from shield.settings import Settings
from shield.sources.egress import EgressGuard
from shield.sources.fetch import Fetcher
from shield.sources.politeness import Politeness
from shield.worker.context import JobContext
from shield.worker.documents import DocumentsHandler
from shield.worker.loop import Worker
from shield.worker.pipeline import IngestHandler
from tests.integration.crawls.conftest import ME, UNHURRIED, Crawls
from tests.peers.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(6):
        folder = tmp_path / "source" / ("a" if number % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.md").write_text(f"# Valve {number}\n\nThe valve number {number} opens at {number + 3} bar.")
    return tmp_path / "source"


class Documents:
    """Jobs of many documents on the components of `Crawls`."""

    def __init__(self, crawls: Crawls, settings: Settings, site: Site | None = None, root: Path | None = None) -> None:
        self.crawls = crawls
        egress = settings.egress.model_copy(update={"allow": (site.allow,) if site else ()})
        self.settings = settings.model_copy(update={"egress": egress, "document_root": root, "jobs": UNHURRIED})

    def handler(self) -> DocumentsHandler:
        fetcher = Fetcher(EgressGuard(self.settings.egress), Politeness(self.settings.crawl), self.settings)
        return DocumentsHandler(self.crawls.tools, fetcher, IngestHandler(self.crawls.tools, fetcher), self.settings)

    async def job(self, **spec: Any) -> Claim:
        request = JobRequest(
            JobKind.INGEST, "ada", self.crawls.base.id, "default", {"type": "documents", **spec}, uuid4().hex, needs=(DOCUMENTS,)
        )
        return await self.claim(await self.crawls.jobs.accept(request))

    async def claim(self, job: Job) -> Claim:
        claim = await self.crawls.jobs.claim(job.id, ME, frozenset({DOCUMENTS}))
        assert claim is not None
        return claim

    async def run(self, claim: Claim) -> Job:
        job = await Worker(self.crawls.jobs, {JobKind.INGEST: self.handler()}, UNHURRIED, JobEvents()).run_one(claim)
        assert job is not None
        return job

    async def again(self, job: Job) -> Job:
        """Run what was put back."""
        await self.crawls.sql("UPDATE jobs SET available_at = now() WHERE id = :id", id=job.id)
        return await self.run(await self.claim(job))

    async def table(self, job: Job) -> dict[int, str]:
        return {o.number: f"{o.source.rpartition('/')[2]} {o.status} {o.code or ''}".strip() for o in await self.crawls.outcomes(job)}


async def test_addresses_are_stored_each_with_its_outcome_and_number(crawls: Crawls, settings: Settings) -> None:
    async with Site(pages=3) as site:
        site.put("/notes.md", "# Notes\n\nThe pump of hall three needs twenty seconds.", content_type="text/markdown")
        site.put("/empty.md", "", content_type="text/markdown")
        documents = Documents(crawls, settings, site)
        urls = [f"{site.url}{path}" for path in ("/page/1", "/notes.md", "/gone", "/empty.md", "/page/2")]
        job = await documents.run(await documents.job(urls=urls, metadata={"team": "night"}))
        assert (job.status, job.outcome) == (Status.COMPLETED, "partial")
        table = await documents.table(job)
        assert table[3] == "gone failed page.not_found"
        assert table[4].startswith("empty.md failed ")
        assert {n: table[n] for n in (1, 2, 5)} == {1: "1 stored", 2: "notes.md stored", 5: "2 stored"}
        assert (job.progress.documents, job.progress.failed, job.progress.pages_found, job.progress.pages_fetched) == (3, 2, 5, 5)
        assert job.progress.percentage == 100
        assert job.progress.chunks >= 3
        assert job.progress.bytes > 0
        assert await crawls.sources() == sorted([urls[0], urls[1], urls[4]])
        assert await crawls.sql("SELECT DISTINCT metadata FROM documents") == [({"team": "night"},)]

        again = await documents.run(await documents.job(urls=urls[:2], metadata={"team": "night"}))
        assert [o.status for o in await crawls.outcomes(again)] == [OutcomeStatus.UNCHANGED] * 2


async def test_two_addresses_of_one_document_store_it_once(crawls: Crawls, settings: Settings) -> None:
    async def moved(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/page/1")

    async with Site(pages=2) as site:
        site.route("/old", moved)
        documents = Documents(crawls, settings, site)
        job = await documents.run(await documents.job(urls=[f"{site.url}/old", f"{site.url}/page/1"]))
        assert (job.status, job.outcome) == (Status.COMPLETED, "complete")
        outcomes = await crawls.outcomes(job)
        assert sorted((o.status, o.code) for o in outcomes) == [("skipped", "page.duplicate"), ("stored", None)]
        assert await crawls.sources() == [f"{site.url}/page/1"]


async def test_a_directory_is_stored_and_its_pictures_are_left_out(crawls: Crawls, settings: Settings, root: Path) -> None:
    (root / "a" / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    (root / "a" / "broken.docx").write_bytes(b"PK\x03\x04 not really")
    documents = Documents(crawls, settings, root=root)
    job = await documents.run(await documents.job(path=".", source="claim:handbook/"))
    assert (job.status, job.outcome) == (Status.COMPLETED, "partial")
    found = {o.source: (o.status, o.code) for o in await crawls.outcomes(job)}
    assert found["claim:handbook/a/logo.png"] == ("skipped", "document.type_unsupported")
    assert found["claim:handbook/a/broken.docx"][0] == "failed"
    assert await crawls.sources() == [f"claim:handbook/{name}" for name in ("a/1.md", "a/3.md", "a/5.md", "b/0.md", "b/2.md", "b/4.md")]
    chosen = await documents.run(await documents.job(path="a", include=["*.md"], exclude=["3.md"]))
    assert (chosen.outcome, {o.source for o in await crawls.outcomes(chosen)}) == ("complete", {"file:a/1.md", "file:a/5.md"})


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"path": "nowhere"}, "document.path_refused"),
        ({"path": "../source"}, "document.path_refused"),
        ({"path": "."}, "document.too_many_files"),
        ({"path": "a", "include": ["*.pdf"]}, "job.nothing_ingested"),
    ],
)
async def test_a_directory_that_gives_nothing_fails_with_its_reason(
    crawls: Crawls, settings: Settings, root: Path, spec: dict[str, Any], code: str
) -> None:
    few = settings.model_copy(update={"file": settings.file.model_copy(update={"max_files": 5})})
    documents = Documents(crawls, few, root=root)
    job = await documents.run(await documents.job(**spec))
    assert (job.status, job.error_code, exit_of(job, strict=False)) == (Status.FAILED, code, Exit.ALL_FAILED)


async def test_without_a_document_root_no_path_is_read(crawls: Crawls, settings: Settings) -> None:
    documents = Documents(crawls, settings)
    assert (await documents.run(await documents.job(path="."))).error_code == "document.path_refused"


async def test_after_a_crash_only_what_has_no_outcome_is_done_again(
    crawls: Crawls, settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = Documents(crawls, settings, root=root)
    claim = await documents.job(path=".")
    recorded = asyncio.Event()
    record: Callable[..., Awaitable[None]] = crawls.jobs.record_outcome

    async def watched(held: Claim, outcome: Any) -> None:
        await record(held, outcome)
        if len(await crawls.jobs.outcomes(held.job.id, limit=100)) >= 3:
            recorded.set()

    monkeypatch.setattr(crawls.jobs, "record_outcome", watched)
    run = asyncio.create_task(documents.handler().run(JobContext(claim, crawls.jobs, JobEvents(), UNHURRIED)))
    await asyncio.wait_for(recorded.wait(), 30)
    run.cancel()
    await asyncio.wait([run])
    monkeypatch.undo()
    before = {o.number: o for o in await crawls.outcomes(claim.job)}
    assert 3 <= len(before) < 6
    asked = crawls.converter.asked
    (root / "a" / "new.md").write_text("# New\n\nA file that came while nobody looked.")
    (root / "b" / "0.md").unlink()
    await crawls.sql("UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = :id", id=claim.job.id)
    job = await documents.run(await documents.claim(claim.job))
    after = {o.number: o for o in await crawls.outcomes(job)}
    assert (job.status, job.outcome) == (Status.COMPLETED, "complete")
    assert {n: after[n] for n in before} == before
    assert crawls.converter.asked - asked == len(after) - len(before)
    expected = {f"file:{name}" for name in ("a/1.md", "a/3.md", "a/5.md", "a/new.md", "b/2.md", "b/4.md")}
    assert {o.source for o in after.values()} - {"file:b/0.md"} == expected
    assert sorted(after) == list(range(1, len(after) + 1))


async def test_what_a_retry_may_mend_is_tried_again_last_and_then_is_an_outcome(crawls: Crawls, settings: Settings) -> None:
    away = True

    async def sometimes(request: web.Request) -> web.StreamResponse:
        if away:
            return _hang_up(request)
        return web.Response(text="<h1>Back</h1><p>The site answers again after its long rest.</p>", content_type="text/html")

    async def never(request: web.Request) -> web.StreamResponse:
        return _hang_up(request)

    async with Site(pages=2) as site:
        site.route("/sick", sometimes)
        site.route("/dead", never)
        documents = Documents(crawls, settings, site)
        job = await documents.run(await documents.job(urls=[f"{site.url}/dead", f"{site.url}/sick", f"{site.url}/page/1"]))
        assert (job.status, job.errors) == (Status.PENDING, 1)
        assert 3 in await documents.table(job), "the others are stored before the run ends"
        visits = site.hits("/page/1")
        away = False
        job = await documents.again(job)
        assert (job.status, job.errors) == (Status.PENDING, 2)
        job = await documents.again(job)
        assert (job.status, job.outcome) == (Status.COMPLETED, "partial")
        table = await documents.table(job)
        assert table[1].startswith("dead failed page.")
        assert site.hits("/page/1") == visits


def _hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_a_release_that_cannot_run_it_does_not_claim_it(crawls: Crawls, settings: Settings) -> None:
    request = JobRequest(
        JobKind.INGEST, "ada", crawls.base.id, "default", {"type": "documents", "urls": []}, uuid4().hex, needs=(DOCUMENTS,)
    )
    job = await crawls.jobs.accept(request)
    old = WorkerId("0.2.0")
    for offers in (frozenset[str](), frozenset({"browser"})):
        assert await crawls.jobs.claim_next(old, offers, FLEET) is None
        assert await crawls.jobs.claim_hinted(job.id, old, offers) is None
