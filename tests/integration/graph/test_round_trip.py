"""Documents go into the graph, are found there, and leave nothing behind."""

from __future__ import annotations

from shield.knowledge.graph.reader import GraphReader
from shield.knowledge.graph.runner import GraphRunner
from tests.integration.graph.conftest import Library, drain

PUMP = "The Krypton pump feeds the cooling loop. A fault E4711 of the Krypton pump stops the turbine within seconds."
LOOP = "The cooling loop carries water from the Krypton pump to the reactor vessel. Its valve V-17 closes by gravity."
FOOD = "Fresh basil belongs on every pizza margherita. The oven must reach four hundred degrees."


async def test_a_document_is_found_and_leaves_without_a_trace(library: Library, runner: GraphRunner, reader: GraphReader) -> None:
    pump = await library.put("note:pump", PUMP, "Spare parts of the Krypton pump are kept in hall seven.")
    await library.put("note:food", FOOD)
    await drain(runner)
    assert [status for _, status, _, _ in await library.tasks()] == ["done", "done"]

    answer = await reader.query(library.kb, "Which fault stops the turbine of the Krypton pump?")
    assert answer.chunks[0].graph_key == pump
    assert answer.chunks[0].ordinal == 0
    assert "E4711" in {entity.name for entity in answer.entities}
    assert any("E4711" in (r.source, r.target) for r in answer.relations)

    await library.delete("note:pump")
    await library.delete("note:food")
    await drain(runner)
    assert sum((await library.rows()).values()) == 0
    assert await library.holding("Krypton") == []
