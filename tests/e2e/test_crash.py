"""kill -9 in the middle of a crawl: the job ends, no page is fetched twice, and the knowledge is that of an undisturbed run."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from fastmcp import Client

from shield.auth import LOCAL
from shield.service.remote import RemoteShield
from tests.e2e.conftest import MakeUp, Up
from tests.integration.conftest import ended
from tests.peers.site import Site

PAGES = 60


async def crawl(client: Client[Any], site: Site) -> str:
    arguments = {"url": site.url, "max_pages": PAGES, "max_depth": 10}
    return str((await client.call_tool("crawl_web", arguments)).data.job_id)


async def fingerprint(up: Up) -> str:
    async with RemoteShield(up.info.url) as shield:
        result = await shield.knowledge_base_hash(LOCAL, "default")
    assert result.documents == PAGES
    assert result.entities > 0
    return result.hash


async def test_a_killed_crawl_resumes_without_fetching_anything_twice(up: MakeUp) -> None:
    async with Site(pages=PAGES) as site:
        undisturbed = up(SHIELD_EGRESS_ALLOW=site.allow)
        await asyncio.to_thread(undisturbed.start)
        async with Client(f"{undisturbed.info.url}/mcp") as client:
            job = await ended(client, await crawl(client, site))
        assert (job["status"], job["outcome"]) == ("completed", "complete"), job
        expected = await fingerprint(undisturbed)
        await asyncio.to_thread(undisturbed.stop)
        site.log.clear()

        server = up(SHIELD_EGRESS_ALLOW=site.allow)
        await asyncio.to_thread(server.start)
        async with Client(f"{server.info.url}/mcp") as client:
            job_id = await crawl(client, site)
            while sum(visit.end is not None for visit in site.log) < PAGES // 3:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(server.kill)
        in_flight = set(site.pages_log()[-4:])  # two requests at a time, and two answers not yet on disk

        await asyncio.to_thread(server.start)
        async with Client(f"{server.info.url}/mcp") as client:
            job = await ended(client, job_id)
        assert (job["status"], job["outcome"]) == ("completed", "complete"), job
        assert job["progress"]["pages_fetched"] == PAGES
        twice = {path for path, times in Counter(site.pages_log()).items() if times > 1}
        assert twice <= in_flight
        assert await fingerprint(server) == expected
        assert await asyncio.to_thread(server.stop) < 10
