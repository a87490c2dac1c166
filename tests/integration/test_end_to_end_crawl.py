"""A site becomes knowledge: an MCP client crawls, follows the job, searches, asks, and deletes."""

from __future__ import annotations

from typing import Any

import pytest
from fastmcp import Client

from tests.integration.conftest import Running, ended
from tests.peers.site import Site


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_of_either_era_crawls_asks_and_deletes(running: Running, mode: Any) -> None:
    async with Site(pages=8) as site, running(egress={"allow": (site.allow,)}) as app, Client(f"{app.info.url}/mcp", mode=mode) as client:
        site.put(
            "/page/3", "<h1>Pump P-17</h1><p>The fault code E4711 means that the cooling water of pump P-17 has run dry overnight.</p>"
        )
        accepted = (await client.call_tool("crawl_web", {"url": site.url, "max_pages": 8})).structured_content or {}
        assert accepted["status"] == "pending"
        assert accepted["poll_after_seconds"] > 0

        job = await ended(client, accepted["job_id"])
        assert (job["status"], job["outcome"], job["progress"]["percentage"]) == ("completed", "complete", 100.0), job
        assert job["progress"]["documents"] == job["progress"]["pages_fetched"] == 8

        found = (await client.call_tool("qdrant_find", {"query": "E4711"})).structured_content or {}
        assert found["results"][0]["source"] == f"{site.url}/page/3"
        assert found["results"][0]["trust"] == "untrusted"

        answer = (await client.call_tool("lightrag_query", {"query": "What does the fault code E4711 mean?"})).structured_content or {}
        assert (answer["found"], answer["kind"]) == (True, "extractive")
        citation = answer["citations"][0]
        assert "cooling water of pump P-17" in citation["quote"]
        text = (await client.call_tool("get_document", {"document_id": citation["document_id"]})).structured_content or {}
        assert text["text"][citation["start"] : citation["end"]] == citation["quote"]

        deletion = (await client.call_tool("delete_document", {"document_id": citation["document_id"]})).structured_content or {}
        job = await ended(client, deletion["job_id"])
        assert job["status"] == "completed", job
        assert job["proof"]["hits"] == 0
        assert job["proof"]["sentences_checked"] > 0
        again = (await client.call_tool("qdrant_find", {"query": "E4711"})).structured_content or {}
        assert all(result["source"] != f"{site.url}/page/3" for result in again["results"])


async def test_a_crawl_again_stores_nothing_twice(running: Running) -> None:
    async with Site(pages=5) as site, running(egress={"allow": (site.allow,)}) as app, Client(f"{app.info.url}/mcp") as client:
        first = await ended(client, (await client.call_tool("crawl_web", {"url": site.url})).data.job_id)
        second = await ended(client, (await client.call_tool("crawl_web", {"url": site.url})).data.job_id)
        assert {outcome["status"] for outcome in first["outcomes"]} == {"stored"}
        assert {outcome["status"] for outcome in second["outcomes"]} == {"unchanged"}
        assert first["job_id"] != second["job_id"]


async def test_pages_that_fail_say_why_and_the_job_is_partial(running: Running) -> None:
    async with Site(pages=2, robots="User-agent: *\nDisallow: /secret\n") as site, running(egress={"allow": (site.allow,)}) as app:
        site.put(
            "/", '<h1>Start</h1><p>A page with enough words to be kept as a document.</p><a href="/gone">a</a> <a href="/secret/x">b</a>'
        )
        async with Client(f"{app.info.url}/mcp") as client:
            job = await ended(client, (await client.call_tool("crawl_web", {"url": site.url})).data.job_id)
        reasons = {outcome["source"].removeprefix(site.url): (outcome["status"], outcome["code"]) for outcome in job["outcomes"]}
        assert (job["status"], job["outcome"]) == ("completed", "partial")
        assert reasons["/gone"] == ("failed", "page.not_found")
        assert reasons["/secret/x"] == ("skipped", "robots.denied")


async def test_a_private_address_is_refused_and_the_job_says_so(running: Running) -> None:
    async with Site(pages=2) as site, running(egress={"ports": (80, 443, site.port)}) as app, Client(f"{app.info.url}/mcp") as client:
        job = await ended(client, (await client.call_tool("crawl_web", {"url": site.url})).data.job_id)
        assert job["status"] == "failed"
        assert job["error"]["code"] == "egress.denied"
        assert site.log == []
