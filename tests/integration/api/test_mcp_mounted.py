"""MCP behind the whole port: the same guards, the same body limit, one lifespan; a real client gets through."""

from __future__ import annotations

import httpx
import pytest
from fastmcp import Client

from shield.api.app import create_app
from shield.auth import LOCAL
from shield.mcp.server import create_mcp, http_app
from shield.settings import load
from shield.telemetry.metrics import Metrics
from tests.integration.api.conftest import serving
from tests.unit.api.test_problems import assert_problem
from tests.unit.stand_in import StandIn


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_calls_tools_behind_the_guards_and_strangers_do_not(mode: str) -> None:
    settings, metrics, stand_in = load(port=0), Metrics(), StandIn()
    mcp = create_mcp(stand_in, metrics, settings, principal=lambda: LOCAL)
    async with serving(create_app(stand_in, settings, metrics, http_app(mcp))) as url:
        async with Client(f"{url}/mcp", mode=mode) as client:
            result = await client.call_tool("list_knowledge_bases", {})
            assert result.structured_content is not None
            assert result.structured_content["knowledge_bases"][0]["name"] == "default"
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert_problem(await client.post("/mcp", json={}, headers={"Host": "evil.example"}), "request.host_refused")
            assert_problem(await client.post("/mcp", json={}, headers={"Origin": "https://evil.example"}), "request.origin_refused")
            huge = b'{"jsonrpc": "2.0", "pad": "' + b"x" * 3_000_000 + b'"}'
            assert_problem(await client.post("/mcp", content=huge, headers={"Content-Type": "application/json"}), "request.too_large")
            assert (await client.get("/jobs")).is_success
        exposed = metrics.render()[0].decode()
        assert 'route="/mcp"' in exposed
        assert 'route="/jobs"' in exposed
