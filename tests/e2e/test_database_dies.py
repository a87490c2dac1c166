"""kill -9 of the embedded PostgreSQL: callers are told to come back, nothing accepted is lost, and service returns by itself."""

from __future__ import annotations

import asyncio
import os
import signal

import httpx
from fastmcp import Client

from tests.e2e.conftest import MakeUp
from tests.integration.conftest import ended


async def test_service_returns_after_postgresql_was_killed_and_the_job_ends(up: MakeUp) -> None:
    server = up()
    info = await asyncio.to_thread(server.start)
    async with Client(f"{info.url}/mcp") as client, httpx.AsyncClient(base_url=info.url) as http:
        text = "\n\n".join(f"# Section {n}\n\nThe pump number {n} is inspected by the crew of ship {n}." for n in range(40))
        job = (await client.call_tool("ingest_doc", {"text": text, "source": "pumps"})).data.job_id
        postmaster = int((server.data_dir / "pg18" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGKILL)
        async with asyncio.timeout(30):
            for expected in (503, 200):
                while (await http.get("/readyz")).status_code != expected:
                    assert (await http.get("/healthz")).status_code == 200
                    await asyncio.sleep(0.05)
        assert (await ended(client, job))["status"] == "completed"
        found = (await client.call_tool("qdrant_find", {"query": "Who inspects pump number 7?"})).structured_content or {}
        assert found["found"] is True
    assert await asyncio.to_thread(server.stop) < 10
