"""Shield's MCP tools through LiteLLM's gateway: either era of the protocol before the gateway, and either behind it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any, Literal
from uuid import uuid4

import pytest
import pytest_asyncio
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from tests.litellm.conftest import BASE, ERAS, Proxy

pytestmark = pytest.mark.asyncio(loop_scope="package")

TOOLS = {
    "cancel_job",
    "crawl_web",
    "create_upload",
    "delete_document",
    "get_document",
    "get_job_status",
    "ingest_doc",
    "lightrag_query",
    "list_documents",
    "list_jobs",
    "list_knowledge_bases",
    "qdrant_find",
    "qdrant_store",
}


class Gateway:
    """One way through the gateway: the server's name there, and a client that speaks one era."""

    def __init__(self, server: str, client: Client[Any]) -> None:
        self.server, self.client = server, client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """What the tool says, an error included, in its structured form."""
        result = await self.client.call_tool(f"{self.server}-{tool}", arguments, raise_on_error=False)
        assert result.structured_content is not None
        return dict(result.structured_content) | ({"is_error": True} if result.is_error else {})


@pytest_asyncio.fixture(loop_scope="package", params=list(ERAS))
async def gateway(request: pytest.FixtureRequest, proxy: Proxy, mode: Literal["auto", "legacy"]) -> AsyncIterator[Gateway]:
    url = f"{proxy.url}/{request.param}/mcp"
    async with Client(StreamableHttpTransport(url, headers={"x-litellm-api-key": f"Bearer {proxy.key}"}), mode=mode) as client:
        yield Gateway(request.param, client)


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> Literal["auto", "legacy"]:
    value: Literal["auto", "legacy"] = request.param
    return value


async def test_all_tools_are_listed_with_their_schemas_in_the_client_s_era(gateway: Gateway, mode: str) -> None:
    tools = {tool.name.removeprefix(f"{gateway.server}-"): tool for tool in await gateway.client.list_tools()}
    assert set(tools) == TOOLS
    assert set(tools["crawl_web"].input_schema["properties"]) >= {"url", "max_pages", "knowledge_base"}
    assert tools["qdrant_find"].annotations is not None
    assert tools["qdrant_find"].annotations.read_only_hint
    assert gateway.client.protocol_version == {"auto": ERAS["shieldnew"], "legacy": ERAS["shieldold"]}[mode]


async def test_a_note_is_stored_found_and_asked_about(gateway: Gateway) -> None:
    source = f"note:{uuid4().hex}"
    stored = await gateway.call(
        "qdrant_store", text=f"The pump of line 7 shows the fault {source[-6:]}.", source=source, knowledge_base=BASE
    )
    assert stored["changed"] is True
    found = await gateway.call("qdrant_find", query=source[-6:], limit=1, knowledge_base=BASE)
    assert [passage["source"] for passage in found["results"]] == [source]
    answer = await gateway.call("lightrag_query", query=f"Which line shows the fault {source[-6:]}?", mode="naive", knowledge_base=BASE)
    assert "line 7" in answer["answer"]


async def test_a_job_is_submitted_and_polled_to_its_end(gateway: Gateway) -> None:
    content = f"# Lighthouse\n\nThe keeper {uuid4().hex} lights the lamp at dusk.\n".encode()
    encoded = base64.b64encode(content).decode()
    job = await gateway.call("ingest_doc", content_base64=encoded, filename="lighthouse.md", knowledge_base=BASE)
    assert job["status"] == "pending"
    async with asyncio.timeout(60):
        while job["status"] not in {"completed", "failed", "cancelled"}:
            job = await gateway.call("get_job_status", job_id=job["job_id"], wait_seconds=10)
    assert (job["status"], job["outcome"], len(job["outcomes"])) == ("completed", "complete", 1)


async def test_an_error_keeps_its_code_and_advice(gateway: Gateway) -> None:
    error = await gateway.call("get_job_status", job_id="00000000-0000-4000-8000-000000000000")
    assert (error["is_error"], error["code"], error["retryable"]) == (True, "job.not_found", False)
    assert error["advice"]
    invalid = await gateway.call("qdrant_find", query="pump", limit=0)
    assert (invalid["is_error"], invalid["code"]) == (True, "request.invalid")
