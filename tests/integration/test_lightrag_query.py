"""Questions: every mode answers, citations are verbatim, and what is not stored is not answered."""

from __future__ import annotations

from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError

from tests.integration.conftest import Running, ended

NOTES = {
    "harbour": "# Harbour\n\nThe Alpha Gateway forwards every manifest to the Customs Ledger before a container leaves the harbour.",
    "ledger": "# Ledger\n\nThe Customs Ledger keeps each manifest for seven years. Inspectors of the Customs Ledger work in two shifts.",
    "garden": "# Garden\n\nTulips are planted in October, about ten centimetres deep, in soil that drains well.",
}


async def fill(client: Client[Any]) -> None:
    jobs = [(await client.call_tool("ingest_doc", {"text": text, "source": name})).data.job_id for name, text in NOTES.items()]
    for job in jobs:
        assert (await ended(client, job))["status"] == "completed"


async def ask(client: Client[Any], query: str, **more: Any) -> dict[str, Any]:
    return dict((await client.call_tool("lightrag_query", {"query": query, **more})).structured_content or {})


async def test_every_mode_answers_with_verbatim_citations(running: Running) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        await fill(client)
        for mode in ("naive", "local", "global", "hybrid", "mix"):
            answer = await ask(client, "How long does the Customs Ledger keep a manifest?", mode=mode)
            assert (answer["found"], answer["kind"], answer["degraded"]) == (True, "extractive", None), (mode, answer)
            assert any("seven years" in citation["quote"] for citation in answer["citations"]), (mode, answer)
            for citation in answer["citations"]:
                text = (await client.call_tool("get_document", {"document_id": citation["document_id"]})).structured_content or {}
                assert text["text"][citation["start"] : citation["end"]] == citation["quote"]
            if mode != "naive":
                assert any("Customs Ledger" in entity["name"] for entity in answer["entities"]), mode
        relations = (await ask(client, "Alpha Gateway and Customs Ledger", mode="global"))["relations"]
        assert any({"Alpha Gateway", "Customs Ledger"} == {relation["source"], relation["target"]} for relation in relations)


async def test_what_is_not_stored_is_not_answered(running: Running) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        assert (await ask(client, "How long does the Customs Ledger keep a manifest?"))["found"] is False
        await fill(client)
        answer = await ask(client, "Which football club won the cup in Brazil last year?")
        assert (answer["found"], answer["kind"], answer["citations"]) == (False, "none", [])


async def test_a_base_without_a_graph_says_so_and_answers_naively(running: Running) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        from shield.auth import LOCAL
        from shield.service.models import KnowledgeBaseCreate

        await app.shield.create_knowledge_base(LOCAL, KnowledgeBaseCreate(name="plain", graph=False))
        job = (await client.call_tool("ingest_doc", {"text": NOTES["garden"], "source": "garden", "knowledge_base": "plain"})).data.job_id
        assert (await ended(client, job))["status"] == "completed"
        with pytest.raises(ToolError, match=r"kb\.no_graph"):
            await ask(client, "When are tulips planted?", knowledge_base="plain", mode="mix")
        for mode in ("naive", "auto"):
            answer = await ask(client, "When are tulips planted?", knowledge_base="plain", mode=mode)
            assert "October" in answer["answer"]
        assert (answer["routed_to"], answer["why"]) == ("naive", "The knowledge base keeps no graph.")


async def test_an_unknown_knowledge_base_is_refused_and_not_created(running: Running) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        with pytest.raises(ToolError, match=r"kb\.not_found"):
            await ask(client, "Anything at all?", knowledge_base="defualt")
        bases = (await client.call_tool("list_knowledge_bases", {})).structured_content or {}
        assert [base["name"] for base in bases["knowledge_bases"]] == ["default"]


async def test_a_deleted_document_leaves_the_graph_too(running: Running) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        await fill(client)
        listed = (await client.call_tool("list_documents", {})).structured_content or {}
        harbour = next(document for document in listed["documents"] if document["source"] == "harbour")
        deletion = (await client.call_tool("delete_document", {"document_id": harbour["document_id"]})).data.job_id
        job = await ended(client, deletion)
        assert (job["status"], job["proof"]["hits"]) == ("completed", 0), job
        answer = await ask(client, "What does the Alpha Gateway forward?", mode="local")
        names = {entity["name"] for entity in answer["entities"]}
        assert "Alpha Gateway" not in names
        assert not any("Alpha Gateway" in str(value) for value in answer["relations"])
