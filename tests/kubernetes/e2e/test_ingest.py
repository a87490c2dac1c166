"""From `kubectl apply` to an answer over MCP."""

from __future__ import annotations

import json

import httpx
from fastmcp import Client

from kind.waiting import until
from tests.kubernetes.e2e.installation import TEAM, Installation, conditions, gone, ingestjob, progressed

BASE = f"{TEAM}--handbook"


async def find(installation: Installation, query: str) -> list[dict[str, object]]:
    async with Client(installation.mcp_url, auth=installation.key) as client:
        found = await client.call_tool("qdrant_find", {"query": query, "knowledge_base": BASE})
    assert found.structured_content is not None
    return list(found.structured_content["results"])


async def test_a_site_becomes_knowledge_that_an_agent_finds(installation: Installation) -> None:
    installation.apply(ingestjob("site", {"web": {"url": f"{installation.site}/", "maxPages": 8}}))
    installation.wait("Complete", "ingestjob/site")
    job = installation.get("ingestjob", "site")
    assert conditions(job["status"]) == {
        "Accepted": ("True", "Accepted"),
        "Suspended": ("False", "NotSuspended"),
        "Complete": ("True", "Completed"),
        "Failed": ("False", "NotFailed"),
    }
    assert job["status"]["progress"]["documents"] == 8
    results = await find(installation, "Where does station 3 stand?")
    assert [item["source"] for item in results if str(item["source"]).startswith(installation.site)], results


async def test_documents_become_knowledge_and_the_row_is_one_for_rest_and_mcp(installation: Installation) -> None:
    urls = [f"{installation.site}/page/{number}" for number in (10, 11)]
    installation.apply(ingestjob("documents", {"documents": {"urls": urls}}))
    installation.wait("Complete", "ingestjob/documents")
    job = installation.get("ingestjob", "documents")
    headers = {"Authorization": f"Bearer {installation.team_key}"}
    async with httpx.AsyncClient(base_url=installation.api_url, headers=headers, trust_env=False) as client:
        rest = (await client.get(f"/jobs/{job['status']['jobId']}")).raise_for_status().json()
    async with Client(installation.mcp_url, auth=installation.team_key) as client:
        mcp = (await client.call_tool("get_job_status", {"job_id": job["status"]["jobId"]})).structured_content
    assert mcp is not None
    assert (rest["status"], mcp["status"], rest["knowledge_base"]) == ("completed", "completed", BASE)
    assert {outcome["source"] for outcome in rest["outcomes"]} == set(urls)


def test_kubectl_shows_the_work(installation: Installation) -> None:
    table = installation.kubectl("get", "-n", TEAM, "ij")
    assert "STATE" in table
    assert "Completed" in table
    events = installation.get("events", "--field-selector", "involvedObject.kind=IngestJob,involvedObject.name=site")["items"]
    assert {event["reason"] for event in events} == {"Started", "Running", "Succeeded"}


def test_a_source_that_is_not_there_fails_at_once_with_its_reason(installation: Installation) -> None:
    installation.apply(ingestjob("nowhere", {"documents": {"urls": [f"{installation.site}/nowhere"]}}))
    installation.wait("Failed", "ingestjob/nowhere")
    status = installation.get("ingestjob", "nowhere")["status"]
    assert conditions(status)["Failed"][0] == "True"
    assert status["attempts"] == 1


def test_a_suspended_job_lets_its_pod_go_and_resumes_where_it_was(installation: Installation) -> None:
    installation.apply(ingestjob("pause", {"web": {"url": f"{installation.site}/", "maxPages": 25, "refresh": True}}))
    until("the first documents", lambda: progressed(installation, "pause"), limit=120)
    installation.kubectl("patch", "-n", TEAM, "ingestjob", "pause", "--type=merge", "-p", json.dumps({"spec": {"suspend": True}}))
    installation.wait("Suspended", "ingestjob/pause", seconds=30)
    gone(installation, "pods", "-l", "shield.hx-citadel.io/ingestjob=pause", "--field-selector=status.phase=Running")
    installation.kubectl("patch", "-n", TEAM, "ingestjob", "pause", "--type=merge", "-p", json.dumps({"spec": {"suspend": False}}))
    installation.wait("Complete", "ingestjob/pause")
    assert installation.get("ingestjob", "pause")["status"]["progress"]["documents"] == 25
