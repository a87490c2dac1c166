"""What the crawl tests share: a sink that keeps what it is given, jobs, claims, and one undisturbed run."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import lxml.html
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.tables import crawl_pages, jobs
from shield.errors import ShieldError
from shield.jobs.model import Claim, Job, JobId, JobKind, Priority, Progress, Stage, Status, WorkerId
from shield.sources.crawl import Crawler, CrawlPlan, Page
from shield.sources.fetch import Fetched, create_fetcher
from shield.sources.model import Converted
from shield.sources.revisit import Known
from shield.sources.urls import join
from tests.integration.sources.web.conftest import web_settings
from tests.peers.site import Site

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Sink:
    """Keeps what it is given, and takes the links out of HTML."""

    raises: dict[str, ShieldError] = field(default_factory=dict)
    pages: list[tuple[int, str]] = field(default_factory=list)
    bad: list[tuple[str, int, str, str, bool]] = field(default_factory=list)
    totals: list[tuple[int, int]] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    at_page: Callable[[int], None] = lambda _: None

    async def read(self, number: int, fetched: Fetched) -> Page:
        self.at_page(number)
        error = self.raises.get(fetched.final_url.partition("//")[2].partition("/")[2])
        if error is not None:
            raise error
        return Page(Converted((), canonical=canonical_of(fetched)), self.links(fetched), hashlib.sha256(fetched.body).hexdigest())

    async def store(self, number: int, fetched: Fetched, page: Page) -> tuple[UUID, int]:
        self.pages.append((number, fetched.url))
        self.bodies[fetched.url] = fetched.body
        return UUID(int=number), 1

    async def unchanged(self, number: int, fetched: Fetched, known: Known) -> bool:
        raise AssertionError("nothing is remembered here")

    def links(self, fetched: Fetched) -> Sequence[str]:
        return links_of(fetched)

    async def failed(self, number: int, url: str, error: ShieldError, counted: bool) -> None:
        self.bad.append(("failed", number, url, error.code, counted))

    async def skipped(self, number: int, url: str, error: ShieldError, counted: bool) -> None:
        self.bad.append(("skipped", number, url, error.code, counted))

    async def counts(self, found: int, fetched: int) -> None:
        self.totals.append((found, fetched))

    def codes(self) -> dict[str, str]:
        return {"/" + url.split("/", 3)[3]: code for _, _, url, code, _ in self.bad}


def canonical_of(fetched: Fetched) -> str:
    """The address that a page names as its own."""
    named = re.search(rb'<link rel="canonical" href="([^"]+)"', fetched.body)
    return join(fetched.final_url, named[1].decode()) if named else ""


def links_of(fetched: Fetched) -> Sequence[str]:
    """The links of an HTML page."""
    found: list[str] = []
    if not fetched.body.strip() or not fetched.content_type.startswith("text/html"):
        return found
    for element in lxml.html.fromstring(fetched.body).iter("a"):
        with contextlib.suppress(ShieldError):
            found.append(join(fetched.final_url, element.get("href") or ""))
    return found


async def no_checkpoint() -> None:
    """Never stops the run."""


async def a_job(engine: AsyncEngine) -> UUID:
    """A running job of fence 0."""
    values = {
        "kind": "crawl",
        "status": "processing",
        "principal": "local",
        "knowledge_base_id": uuid4(),
        "knowledge_base": "default",
        "request_hash": "h",
        "deadline_at": sa.func.now() + sa.text("interval '1 day'"),
    }
    async with engine.begin() as connection:
        job: UUID = (await connection.execute(jobs.insert().values(values).returning(jobs.c.id))).scalar_one()
    return job


async def a_claim(engine: AsyncEngine, job: UUID) -> Claim:
    """Take the job over: the next fence."""
    async with engine.begin() as connection:
        moved = sa.update(jobs).where(jobs.c.id == job).values(fence=jobs.c.fence + 1).returning(jobs.c.fence)
        fence = (await connection.execute(moved)).scalar_one()
    now = datetime.now(UTC)
    row = Job(
        JobId(job), 1, JobKind.CRAWL, Status.PROCESSING, Stage.ACQUIRE, "local", "fleet", (), Priority.NORMAL, uuid4(), "default", {}, fence,
        Progress(), 0, 0, False, now, now, now, now,
    )  # fmt: skip
    return Claim(row, fence, WorkerId("w"))


async def table(engine: AsyncEngine, job: UUID) -> list[dict[str, Any]]:
    """The crawl's rows without times, by number."""
    columns = [column for column in crawl_pages.c if column.name not in {"job_id", "fetched_at"}]
    async with engine.connect() as connection:
        rows = await connection.execute(sa.select(*columns).where(crawl_pages.c.job_id == job).order_by(crawl_pages.c.number))
        return [dict(row._mapping) for row in rows]


async def crawl(
    engine: AsyncEngine, site: Site, sink: Sink, plan: CrawlPlan | None = None, job: UUID | None = None, **crawl: object
) -> UUID:
    """One undisturbed run."""
    job = job or await a_job(engine)
    settings = web_settings(site.port, **crawl)
    crawler = Crawler(engine, create_fetcher(settings), settings.crawl)
    await crawler.run(await a_claim(engine, job), plan or CrawlPlan(f"{site.url}/", max_pages=200, max_depth=9), sink, no_checkpoint)
    return job
