"""A real fleet in processes of its own: agents in both protocol eras, degraded and lost services, and who is told what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from fastmcp import Client

from tests.fleet import Fleet

pytestmark = pytest.mark.xdist_group("fleet")
_ENDED = {"completed", "failed", "cancelled"}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """One orchestrator, an MCP server and two workers; leases long enough for an outage of the database."""
    limits = {"SHIELD_JOBS_LEASE": "20", "SHIELD_JOBS_HEARTBEAT": "1", "SHIELD_JOBS_MAX_RUNNING_PRINCIPAL": "50"}
    with Fleet(workers=2, environment=limits) as fleet:
        yield fleet


async def ready(fleet: Fleet) -> tuple[int, dict[str, Any]]:
    """What the orchestrator says of itself: status, and each dependency's state."""
    async with httpx.AsyncClient(base_url=fleet.api_url, timeout=10) as client:
        answer = await client.get("/readyz")
        return answer.status_code, {item["name"]: item["status"] for item in answer.json()["dependencies"]} | {
            "all": answer.json()["status"]
        }


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_an_agent_ingests_finds_and_asks_through_three_processes(fleet: Fleet, era: Any) -> None:
    async with Client(fleet.mcp_url, mode=era) as client:
        text = f"The lighthouse of the {era} era is painted in green and carries lamp LX-{len(era)}77."
        job = (
            await client.call_tool("ingest_doc", {"text": text, "filename": "lighthouse.md", "source": f"lighthouse:{era}"})
        ).structured_content
        assert job is not None
        while (job := (await client.call_tool("get_job_status", {"job_id": job["job_id"], "wait_seconds": 30})).structured_content or {})[
            "status"
        ] not in _ENDED:
            pass
        assert job["status"] == "completed"
        found = (await client.call_tool("qdrant_find", {"query": f"LX-{len(era)}77"})).structured_content or {}
        assert [item["source"] for item in found["results"]][:1] == [f"lighthouse:{era}"]
        answer = (
            await client.call_tool("lightrag_query", {"query": f"Which lamp does the lighthouse of the {era} era carry?"})
        ).structured_content
        assert answer is not None
        assert answer["found"]
        assert answer["routed_to"] in {"naive", "mix"}
        refused = await client.call_tool("get_job_status", {"job_id": "00000000-0000-4000-8000-000000000000"}, raise_on_error=False)
        assert refused.is_error
        assert (refused.structured_content or {})["code"] == "job.not_found"


async def test_without_redis_the_fleet_is_degraded_and_works(fleet: Fleet) -> None:
    status, states = await ready(fleet)
    assert (status, states["postgres"], states["redis"], states["qdrant"]) == (200, "ok", "ok", "ok")
    fleet.valkey.kill()
    try:
        status, states = await ready(fleet)
        assert (status, states["redis"], states["all"]) == (200, "degraded", "degraded")
        async with httpx.AsyncClient(base_url=fleet.api_url, timeout=60) as client:
            body = {"spec": {"type": "document", "text": "Written while Redis was away.", "source": "away:1"}}
            answer = await client.post("/lightrag/ingest-async", json=body)
            assert answer.status_code == 202
            job = (await client.get(answer.headers["Location"], params={"wait": 40})).json()
            assert job["status"] == "completed"
    finally:
        fleet.valkey.start()


async def test_p10_postgres_down_for_three_seconds_under_load(fleet: Fleet) -> None:
    """Never a false 202, 503 meanwhile, back within five seconds of its return, and no document is written twice."""
    accepted: dict[int, str] = {}
    refused: list[int] = []
    back = down = 0.0

    async def submit(client: httpx.AsyncClient, number: int) -> None:
        nonlocal back
        body = {"spec": {"type": "document", "text": f"The crane number {number} lifts {number} tons.", "source": f"crane:{number}"}}
        while number not in accepted:
            try:
                answer = await client.post("/lightrag/ingest-async", json=body, headers={"Idempotency-Key": f"crane-{number}"})
            except httpx.HTTPError:
                continue
            if answer.status_code == 202:
                accepted[number] = answer.json()["job_id"]
                if down and not back:
                    back = time.monotonic()
            else:
                refused.append(answer.status_code)
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["Retry-After"]) >= 1
                await asyncio.sleep(0.1)

    async with httpx.AsyncClient(base_url=fleet.api_url, timeout=10) as client:
        for number in range(20):
            await submit(client, number)
        await asyncio.to_thread(fleet.kill_postgres)
        status, _ = await ready(fleet)
        assert status == 503
        rest = asyncio.create_task(_all(submit, client, range(20, 60)))
        await asyncio.sleep(3)
        await asyncio.to_thread(fleet.revive_postgres)
        down = time.monotonic()
        await rest
        assert refused
        assert back - down < 5, "the service must be back within five seconds"
        for job_id in accepted.values():
            assert (await client.get(f"/jobs/{job_id}", params={"wait": 45}, timeout=60)).json()["status"] == "completed"
    with psycopg.connect(fleet.dsn) as connection:
        rows = connection.execute(
            "SELECT count(*), count(live_revision), (SELECT count(*) FROM job_outcomes WHERE source LIKE 'crane:%'),"
            " (SELECT count(*) FROM jobs WHERE spec->>'source' LIKE 'crane:%' AND crashes > 0)"
            " FROM documents WHERE source LIKE 'crane:%'"
        ).fetchall()
    assert rows == [(60, 60, 60, 0)], "each job ran once: what the outage cut off went back to the queue, and nothing was taken over"


async def _all(submit: Any, client: httpx.AsyncClient, numbers: range) -> None:
    for number in numbers:
        await submit(client, number)
