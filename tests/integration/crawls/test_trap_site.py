"""The trap site ends in exactly this table, undisturbed or killed, and its access log says that the rules were kept."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from shield.errors import leaf_errors
from shield.jobs.model import DocumentOutcome, Job
from shield.settings import Settings
from shield.sources.egress import EgressGuard
from tests.integration.crawls.conftest import Crawls
from tests.integration.sources.web.conftest import web_settings
from tests.peers.trap_site import TrapSite

pytestmark = pytest.mark.asyncio(loop_scope="module")

TABLE = (Path(__file__).parent / "trap_table.txt").read_text(encoding="utf-8")


class Watched(EgressGuard):
    """The guard; it keeps what was dialled."""

    def __init__(self, site: TrapSite, settings: Settings) -> None:
        super().__init__(settings.egress, site.resolve)
        self.dialled: set[tuple[str, int]] = set()

    def socket_factory(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        self.dialled.add((str(info[4][0]), int(str(info[4][1]))))
        return super().socket_factory(info)


def trap_settings(site: TrapSite) -> Settings:
    settings = web_settings(site.port, page_timeout=1.5, per_host=8)
    return settings.model_copy(update={"egress": settings.egress.model_copy(update={"allow": tuple(site.egress)})})


async def as_text(crawls: Crawls, job: Job, site: TrapSite) -> str:
    """The job's outcomes: number, counted, status, reason, address, and the message where it says more than the reason does."""
    lines = []
    for outcome in await crawls.outcomes(job):
        address = outcome.source.removeprefix(site.url).replace(f":{site.port}", ":PORT").replace(f":{site.closed_port}", ":CLOSED")
        head = f"{outcome.number:3} {'counted' if outcome.counted else '-':7} {outcome.status:7} {outcome.code or '-':21}"
        lines.append(f"{head} {address}{more(outcome)}\n")
    return "".join(lines)


def more(outcome: DocumentOutcome) -> str:
    own = outcome.code is not None and outcome.message != leaf_errors()[outcome.code].sentence()
    return f"  | {outcome.message}" if own else ""


def counted(table: str) -> list[str]:
    return [line.split()[4] for line in table.splitlines() if line.split()[1] == "counted"]


def keeps_the_rules(site: TrapSite, guard: Watched) -> None:
    """What the site's access log and the dialled addresses must not show."""
    assert not [visit.path for visit in site.log if visit.path.startswith("/private") or "action=edit" in visit.path]
    assert [visit.path for visit in site.log if visit.headers["Host"].startswith("rebind.example")] == ["/robots.txt"]
    assert guard.dialled == {("127.0.0.1", site.port), ("127.0.0.1", site.closed_port)}


async def test_the_trap_site_ends_in_exactly_the_table(crawls: Crawls) -> None:
    async with TrapSite() as site:
        settings = trap_settings(site)
        guard = Watched(site, settings)
        job = await crawls.run(await crawls.job(f"{site.url}/", **site.spec), settings, guard)
        assert job is not None
        assert await as_text(crawls, job, site) == TABLE
        assert (job.outcome, job.progress.pages_fetched, len(counted(TABLE))) == ("partial", site.spec["max_pages"], site.spec["max_pages"])
        assert {path: site.hits(path) for path in counted(TABLE)} == {
            path: 3 if path in {"/status/429", "/patient"} else 2 if path == "/page/1" else 1 for path in counted(TABLE)
        }
        hops = {"/page/1", "/ring/2", *(f"/chain/{n}" for n in range(1, 6))}
        assert {visit.path for visit in site.log} == {*counted(TABLE), *hops, "/robots.txt"}
        assert site.hits("/robots.txt") == 2  # the site's, and that of its other name
        keeps_the_rules(site, guard)


async def test_killed_in_the_middle_it_ends_in_the_same_table(crawls: Crawls) -> None:
    async with TrapSite() as site:
        settings = trap_settings(site)
        guard = Watched(site, settings)
        claim = await crawls.job(f"{site.url}/", **site.spec)
        for requests in (20, 70):
            claim = await crawls.kill(claim, settings, guard, site.visited(requests, limit=60))
        job = await crawls.run(claim, settings, guard)
        assert job is not None
        assert await as_text(crawls, job, site) == TABLE
        twice = [path for path in counted(TABLE) if site.hits(path) > 1 and path not in {"/status/429", "/patient", "/page/1"}]
        assert len(twice) <= 2 * settings.crawl.concurrency  # only what was under way when it was killed is asked for again
        keeps_the_rules(site, guard)
