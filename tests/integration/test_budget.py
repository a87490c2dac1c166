"""A budget of tokens, through the whole process: what is stored stays, the graph ends where the budget does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastmcp import Client

from tests.integration.conftest import Running, ended
from tests.peers.llm import LlmPeer, llm_peer

TEXT = "\n\n".join(
    f"# Chapter {n}\n\nKrypton meets {name} in the Harbour of Arkona." for n, name in enumerate(["Osvaldo", "Beatrix", "Cosimo"], 1)
)


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

        async def ingest(source: str, text: str, budget: int | None) -> dict[str, Any]:
            body = {"spec": {"type": "document", "text": text, "source": source}} | ({"budget": {"tokens": budget}} if budget else {})
            answer = await rest.post("/lightrag/ingest-async", json=body)
            assert answer.status_code == 202, answer.text
            return await ended(client, answer.json()["job_id"])

        rich = await ingest("note:rich", TEXT, 100_000)
        assert (rich["status"], rich["outcome"], rich["budget_tokens"]) == ("completed", "complete", 100_000)
        assert rich["tokens"] == 18 * sum("<passage-" in call["messages"][-1]["content"] for call in peer.calls) > 0

        asked = len(peer.calls)
        poor = await ingest("note:poor", "Zacharias sails to the Island of Thule.", 100)
        assert (poor["status"], poor["outcome"], poor["tokens"], poor["budget_tokens"]) == ("completed", "partial", 0, 100)
        (outcome,) = poor["outcomes"]
        assert (outcome["status"], outcome["code"]) == ("stored", "job.budget_exceeded")
        assert len(peer.calls) == asked

        found = (await client.call_tool("qdrant_find", {"query": "Zacharias Thule"})).structured_content or {}
        assert found["results"][0]["source"] == "note:poor"
        metrics = (await rest.get(app.info.metrics_url)).text
        assert 'shield_llm_tokens_total{direction="in",purpose="extract"}' in metrics
        assert 'shield_dependency_misconfigured{service="llm"} 0.0' in metrics

        async def ask(budget: object, key: str) -> httpx.Response:
            body = {"spec": {"type": "document", "text": "A note.", "source": "note:a"}, "budget": budget}
            return await rest.post("/lightrag/ingest-async", json=body, headers={"idempotency-key": key})

        for wrong in ({"tokens": 0}, {"tokens": -1}, {"tokens": "many"}, {"tokens": True}, {}, {"tokens": 5, "money": 1}, 5):
            answer = await ask(wrong, "w")
            assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid"), wrong
        assert (await ask({"tokens": 5}, "k")).status_code == 202
        assert (await ask({"tokens": 6}, "k")).json()["code"] == "idempotency.mismatch"
