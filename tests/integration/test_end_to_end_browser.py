"""From a tool call to an answer, over a page that is empty without its scripts."""

from __future__ import annotations

from fastmcp import Client

from tests.integration.conftest import Running, ended
from tests.peers.site import Site


async def test_a_page_that_only_scripts_fill_is_found_by_what_they_wrote(running: Running) -> None:
    async with Site() as site:
        text = "The lighthouse of Arvika burns acetylene, and its keeper trims the lamp at dusk."
        site.put("/", f"<title>Arvika</title><div id=root></div><script>root.innerHTML = `<h1>Arvika</h1><p>{text}</p>`</script>")
        async with running(egress={"allow": (site.allow,)}) as app, Client(f"{app.info.url}/mcp") as client:
            jobs = []
            for render in ({}, {"render": "browser", "max_depth": 0}):
                told = await client.call_tool("crawl_web", {"url": f"{site.url}/", **render})
                jobs.append(await ended(client, (told.structured_content or {})["job_id"]))
            found = (await client.call_tool("qdrant_find", {"query": "What does the lighthouse of Arvika burn?"})).structured_content or {}
    assert [job["status"] for job in jobs] == ["completed", "completed"]
    assert text in found["results"][0]["text"]
    assert site.hits("/") == 2
