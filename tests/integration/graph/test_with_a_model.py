"""The graph with a language model: four chunks a call, outside the writer, paid once, and by rule where the model fails."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
import sqlalchemy as sa

from shield.knowledge.graph.reader import GraphReader
from shield.knowledge.graph.runner import GraphRunner
from shield.knowledge.llm import create_llm
from shield.resilience import Breakers
from shield.settings import LlmSettings, Settings
from tests.integration.graph.conftest import Library, WordHashEmbedder, drain
from tests.peers.llm import LlmPeer, extraction, llm_peer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHUNKS = [f"Krypton meets {name} in the Harbour of Arkona." for name in ("Osvaldo", "Beatrix", "Cosimo", "Dagmar", "Emil", "Frieda")]


@pytest_asyncio.fixture(loop_scope="module")
async def peer() -> AsyncIterator[LlmPeer]:
    async with llm_peer() as peer:
        yield peer


@pytest_asyncio.fixture(loop_scope="module")
async def runner(dsn: str, library: Library, peer: LlmPeer, settings: Settings) -> AsyncIterator[GraphRunner]:
    llm = create_llm(LlmSettings(provider="openai", base_url=peer.url, model="small"), Breakers(settings.breaker))
    assert llm is not None
    runner = GraphRunner(library.engine, dsn, WordHashEmbedder(), llm, settings)
    yield runner
    await runner.close()
    await llm.close()


def passages(peer: LlmPeer) -> list[int]:
    return [call["messages"][-1]["content"].count("<passage-") for call in peer.calls if "<passage-" in call["messages"][-1]["content"]]


async def test_a_text_is_extracted_four_chunks_a_call_and_found(
    library: Library, runner: GraphRunner, peer: LlmPeer, reader: GraphReader
) -> None:
    key = await library.put("note:long", *CHUNKS[:5], "Krypton meets Xaverius at the Lighthouse of Arkona.")
    await drain(runner)
    assert sorted(passages(peer)) == [2, 4]
    answer = await reader.query(library.kb, "Who meets Osvaldo in the Harbour?")
    assert {"Krypton", "Osvaldo"} <= {entity.name for entity in answer.entities}
    assert {chunk.graph_key for chunk in answer.chunks} == {key}
    await library.delete("note:long")
    await drain(runner)
    assert sum((await library.rows()).values()) == 0
    assert await library.holding("Xaverius") == []  # the kept extractions are gone too


async def test_what_was_paid_for_is_not_asked_again(library: Library, runner: GraphRunner, peer: LlmPeer) -> None:
    await library.put("note:long", *CHUNKS)
    await drain(runner)
    asked = len(passages(peer))
    async with library.engine.begin() as c:  # as if the worker had died before it could say that it was done
        await c.execute(sa.text("UPDATE graph_tasks SET status = 'pending' WHERE knowledge_base_id = :kb"), {"kb": library.kb.id})
    await library.put("note:other", "Gudrun sails past Arkona.")
    await drain(runner)
    assert passages(peer)[asked:] == [1]


async def test_an_outage_puts_the_step_off_without_the_writer(library: Library, runner: GraphRunner, peer: LlmPeer) -> None:
    peer.statuses.extend([503, 503])
    await library.put("note:one", CHUNKS[0])
    await drain(runner)
    assert [(status, errors) for _, status, errors, _ in await library.tasks()] == [("done", 0)]


async def test_an_answer_that_is_always_late_gives_the_step_up(library: Library, runner: GraphRunner, peer: LlmPeer) -> None:
    runner._readers[0]._extractor._llm._settings = LlmSettings(timeout=timedelta(milliseconds=30))  # type: ignore[attr-defined]
    peer.silent = True
    await library.put("note:one", CHUNKS[0])
    await drain(runner)
    assert [(status, errors, code) for _, status, errors, code in await library.tasks()] == [("failed", 3, "dependency.unavailable")]


async def test_an_outage_that_outlasts_every_job_gives_the_step_up(library: Library, runner: GraphRunner, peer: LlmPeer) -> None:
    peer.statuses.append(503)
    await library.put("note:one", CHUNKS[0])
    async with library.engine.begin() as c:
        await c.execute(
            sa.text("UPDATE graph_tasks SET created_at = now() - interval '2 days' WHERE knowledge_base_id = :kb"), {"kb": library.kb.id}
        )
    await drain(runner)
    assert [(status, code) for _, status, _, code in await library.tasks()] == [("failed", "dependency.unavailable")]


async def test_a_refused_key_costs_no_try(library: Library, runner: GraphRunner, peer: LlmPeer) -> None:
    peer.statuses.append(401)
    await library.put("note:one", CHUNKS[0])
    assert await runner.step()
    ((_, status, errors, code),) = await library.tasks()
    assert (status, errors, code) == ("pending", 0, "dependency.misconfigured")
    async with library.engine.connect() as c:
        assert (await c.execute(sa.text("SELECT 1 FROM kb_writer WHERE kb = :kb"), {"kb": library.kb.id.hex})).first() is None
    peer.statuses.clear()
    async with library.engine.begin() as c:  # the circuit is open for a minute: nothing is left for others to find
        await c.execute(sa.text("DELETE FROM graph_tasks WHERE knowledge_base_id = :kb"), {"kb": library.kb.id})


async def test_a_chunk_the_model_refuses_or_garbles_gets_its_graph_by_rule(
    library: Library, runner: GraphRunner, peer: LlmPeer, reader: GraphReader
) -> None:
    def garble(prompt: str) -> str:
        if "Beatrix" in prompt and prompt.count("<passage-") == 1:
            return "I cannot help with that."
        answer = json.loads(extraction(prompt))
        answer["passages"] = [p for p in answer["passages"] if "Beatrix" not in str(p)]
        return json.dumps(answer)

    peer.reply = garble
    peer.statuses.append(400)  # the whole group is refused at first: each passage is asked for alone
    await library.put("note:long", *CHUNKS[:3])
    await drain(runner)
    assert [status for _, status, _, _ in await library.tasks()] == ["done"]
    names = {entity.name for entity in (await reader.query(library.kb, "Beatrix Osvaldo Cosimo Krypton Harbour Arkona")).entities}
    assert "Osvaldo" in names
    assert any("Beatrix" in name for name in names)
