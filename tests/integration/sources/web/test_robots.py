"""robots.txt by RFC 9309, over a real site."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from shield.errors import EgressPortDenied, PageUnreachable, RobotsDelayTooLong, RobotsDenied, RobotsUnavailable
from shield.sources.egress import EgressGuard
from shield.sources.fetch import Fetcher
from shield.sources.politeness import Politeness
from shield.sources.robots import Robots
from tests.integration.sources.web.conftest import web_settings
from tests.peers.site import Site


class Hands:
    """A clock that is moved by hand."""

    time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def robots(site: Site, clock: Hands | None = None, **crawl: object) -> Robots:
    settings = web_settings(site.port, **crawl)
    return Robots(Fetcher(EgressGuard(settings.egress), Politeness(settings.crawl), settings), settings.crawl, clock)


async def test_our_own_group_goes_before_the_general_one(site: Site) -> None:
    site.robots = "User-agent: *\nDisallow: /\n\nUser-agent: Shield\nDisallow: /private\nAllow: /private/open\n"
    one = robots(site)
    assert await one.admit(f"{site.url}/a") is None
    assert await one.admit(f"{site.url}/private/open/x") is None
    with pytest.raises(RobotsDenied):
        await one.admit(f"{site.url}/private/x")


async def test_wildcards_and_ends_are_understood(site: Site) -> None:
    site.robots = "User-agent: *\nDisallow: /*.pdf$\nDisallow: /*?session="
    one = robots(site)
    assert await one.admit(f"{site.url}/a.pdf?x") is None
    for path in ("/a/b.pdf", "/a?session=1"):
        with pytest.raises(RobotsDenied):
            await one.admit(site.url + path)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429, 451])
async def test_4xx_allows_everything(site: Site, status: int) -> None:
    site.robots = status
    assert await robots(site).admit(f"{site.url}/a") is None


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_5xx_allows_nothing(site: Site, status: int) -> None:
    site.robots = status
    with pytest.raises(RobotsUnavailable):
        await robots(site).admit(f"{site.url}/a")


async def test_503_with_retry_after_is_waited_for_and_then_refuses(site: Site) -> None:
    site.throttle("/robots.txt", times=9, retry_after="0", status=503)
    with pytest.raises(RobotsUnavailable):
        await robots(site).admit(f"{site.url}/a")
    assert site.hits("/robots.txt") == 3


async def test_a_time_out_allows_nothing(site: Site) -> None:
    site.endless("/robots.txt")
    with pytest.raises(RobotsUnavailable):
        await robots(site, page_timeout=0.1).admit(f"{site.url}/a")


async def test_a_host_that_cannot_be_reached_says_so_itself() -> None:
    async with Site() as gone:
        pass
    with pytest.raises(PageUnreachable):
        await robots(gone).admit(f"{gone.url}/a")


async def test_a_host_that_may_not_be_called_says_so_itself(site: Site) -> None:
    with pytest.raises(EgressPortDenied):
        await robots(site).admit("http://127.0.0.1:1/a")


async def test_five_redirects_are_followed_and_a_longer_chain_allows_everything(site: Site) -> None:
    site.redirect("/robots.txt", "/r1")
    for n in range(1, 9):
        site.redirect(f"/r{n}", f"/r{n + 1}")
    site.put("/r5", "User-agent: *\nDisallow: /", content_type="text/plain")
    with pytest.raises(RobotsDenied):
        await robots(site).admit(f"{site.url}/a")
    site.redirect("/r5", "/r6")
    assert await robots(site).admit(f"{site.url}/a") is None


async def test_only_the_first_part_of_a_huge_file_is_read(site: Site) -> None:
    rules = "User-agent: *\nDisallow: /early\n" + "# filler\n" * 1000 + "Disallow: /late\n"
    site.put("/robots.txt", rules, content_type="text/plain")
    one = robots(site, max_robots_bytes=1000)
    assert await one.admit(f"{site.url}/late") is None
    with pytest.raises(RobotsDenied):
        await one.admit(f"{site.url}/early")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00garbage\x00", b"", b"<html>404</html>", b"\xef\xbb\xbfUser-agent: *\nDisallow:"])
async def test_a_file_without_rules_allows_everything(site: Site, content: bytes) -> None:
    site.put("/robots.txt", content)
    assert await robots(site).admit(f"{site.url}/a") is None


async def test_a_hostile_pattern_is_matched_in_no_time(site: Site) -> None:
    site.robots = "User-agent: *\nDisallow: /" + "*a" * 500 + "b$"
    one = robots(site)
    async with asyncio.timeout(1):
        assert await one.admit(f"{site.url}/{'a' * 1900}") is None


class TestCrawlDelay:
    async def test_it_is_told(self, site: Site) -> None:
        site.robots = "User-agent: *\nCrawl-delay: 1.5"
        assert await robots(site).admit(f"{site.url}/a") == timedelta(seconds=1.5)

    async def test_more_than_thirty_seconds_must_be_accepted(self, site: Site) -> None:
        site.robots = "User-agent: *\nCrawl-delay: 31"
        one = robots(site)
        with pytest.raises(RobotsDelayTooLong, match="31 s"):
            await one.admit(f"{site.url}/a")
        assert await one.admit(f"{site.url}/a", timedelta(seconds=40)) == timedelta(seconds=31)

    async def test_a_job_may_accept_less(self, site: Site) -> None:
        site.robots = "User-agent: *\nCrawl-delay: 10"
        with pytest.raises(RobotsDelayTooLong):
            await robots(site).admit(f"{site.url}/a", timedelta(seconds=5))

    @pytest.mark.parametrize("told", ["0", "-1", "nan", "inf", "soon", "1e999"])
    async def test_one_that_makes_no_sense_is_none(self, site: Site, told: str) -> None:
        site.robots = f"User-agent: *\nCrawl-delay: {told}"
        assert await robots(site).admit(f"{site.url}/a") is None


class TestMemory:
    async def test_one_request_serves_many_pages_at_once(self, site: Site) -> None:
        site.delay = lambda _: 0.05
        one = robots(site)
        await asyncio.gather(*(one.admit(f"{site.url}/{n}") for n in range(20)))
        assert site.hits("/robots.txt") == 1

    async def test_it_is_asked_for_again_after_its_time(self, site: Site) -> None:
        clock = Hands()
        one = robots(site, clock, robots_ttl=60)
        await one.admit(f"{site.url}/a")
        site.robots = "User-agent: *\nDisallow: /"
        clock.time = 59
        await one.admit(f"{site.url}/a")
        clock.time = 61
        with pytest.raises(RobotsDenied):
            await one.admit(f"{site.url}/a")
        assert site.hits("/robots.txt") == 2

    async def test_a_failure_is_remembered_for_a_short_time(self, site: Site) -> None:
        clock = Hands()
        one = robots(site, clock, robots_retry=5)
        site.robots = 500
        for _ in range(3):
            with pytest.raises(RobotsUnavailable):
                await one.admit(f"{site.url}/a")
        assert site.hits("/robots.txt") == 1
        site.robots = None
        clock.time = 6
        assert await one.admit(f"{site.url}/a") is None

    async def test_a_cancelled_reader_leaves_the_next_one_to_read(self, site: Site) -> None:
        site.delay = lambda _: 0.2
        one = robots(site)
        first = asyncio.create_task(one.admit(f"{site.url}/a"))
        second = asyncio.create_task(one.admit(f"{site.url}/b"))
        await site.visited(1)
        first.cancel()
        assert await second is None
        assert site.hits("/robots.txt") == 2
