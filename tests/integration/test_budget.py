"""A budget of tokens, through the whole process: what is stored stays, the graph ends where the budget does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastmcp import Client

from tests.integration.conftest import Running, ended
from tests.peers.llm import LlmPeer, llm_peer


@pytest.fixture
async def peer() -> AsyncIterator[LlmPeer]:
    async with llm_peer() as peer:
        yield peer


async def test_a_spent_budget_leaves_what_is_stored_and_ends_the_graph_with_its_code(running: Running, peer: LlmPeer) -> None:
    async with (
        running(llm={"provider": "openai", "base_url": peer.url, "model": "small", "max_tokens": 500}) as app,
        Client(f"{app.info.url}/mcp") as client,
        httpx.AsyncClient(base_url=app.info.url) as rest,
    ):

        async def ingest(source: str, text: str, budget: Any) -> httpx.Response:
            body = {"spec": {"type": "document", "text": text, "source": source}, "budget": budget}
            return await rest.post("/lightrag/ingest-async", json=body, headers={"idempotency-key": source})

        for wrong in ({"tokens": 0}, {"tokens": -1}, {"tokens": "many"}, {"tokens": True}, {}, {"tokens": 5, "money": 1}, 5):
            answer = await ingest("note:wrong", "A note.", wrong)
            assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid"), wrong

        accepted = [
            await ingest("note:rich", "Krypton meets Osvaldo in the Harbour of Arkona.", {"tokens": 100_000}),
            await ingest("note:poor", "Zacharias sails to the Island of Thule.", {"tokens": 100}),
        ]
        again = await ingest("note:poor", "Zacharias sails to the Island of Thule.", {"tokens": 101})
        assert again.json()["code"] == "idempotency.mismatch"
        rich, poor = [await ended(client, answer.json()["job_id"]) for answer in accepted]

        assert (rich["status"], rich["outcome"], rich["tokens"], rich["budget_tokens"]) == ("completed", "complete", 18, 100_000)
        assert (poor["status"], poor["outcome"], poor["tokens"], poor["budget_tokens"]) == ("completed", "partial", 0, 100)
        (outcome,) = poor["outcomes"]
        assert (outcome["status"], outcome["code"]) == ("stored", "job.budget_exceeded")
        assert ["Zacharias" in str(call["messages"]) for call in peer.calls] == [False]

        found = (await client.call_tool("qdrant_find", {"query": "Zacharias Thule"})).structured_content or {}
        assert found["results"][0]["source"] == "note:poor"
        metrics = (await rest.get(app.info.metrics_url)).text
        assert 'shield_llm_tokens_total{direction="in",purpose="extract"} 11.0' in metrics
        assert 'shield_dependency_misconfigured{service="llm"} 0.0' in metrics
