"""Questions to the graph: found in every mode, from live texts only, without a single write."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import DependencyUnavailable, QueryTooShort
from shield.knowledge.graph.model import GraphAnswer, GraphMode
from shield.knowledge.graph.reader import GraphReader
from shield.knowledge.graph.runner import GraphRunner
from shield.settings import Settings
from tests.integration.graph.conftest import Library, NewLibrary, WordHashEmbedder, drain

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUMP = "The Krypton pump feeds the cooling loop. A fault E4711 of the Krypton pump stops the turbine."
HALL = "Spare parts of the Krypton pump lie in hall seven. The cooling loop is drained before the Krypton pump is opened."
FOOD = "Fresh basil belongs on every pizza margherita. The oven must reach four hundred degrees."
QUESTION = "Which fault stops the turbine of the Krypton pump?"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant(new_library: NewLibrary, runner: GraphRunner) -> Library:
    library = await new_library()
    await library.put("note:pump", PUMP)
    await library.put("note:food", FOOD)
    await drain(runner)
    return library


@pytest.mark.parametrize("mode", ["naive", "local", "global", "hybrid", "mix"])
async def test_every_mode_finds_the_chunk_and_writes_nothing(mode: GraphMode, plant: Library, reader: GraphReader) -> None:
    before = await plant.rows()
    answer = await reader.query(plant.kb, QUESTION, mode=mode)
    assert answer.chunks[0].ordinal == 0
    assert [chunk.rank for chunk in answer.chunks] == list(range(1, len(answer.chunks) + 1))
    assert bool(answer.entities) == bool(answer.relations) == (mode != "naive")
    assert await plant.rows() == before


async def test_a_reader_cannot_write_even_if_it_tried(plant: Library, reader: GraphReader) -> None:
    await reader.query(plant.kb, QUESTION)
    async with plant.engine.connect() as c:
        shown = await c.execute(
            sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shield-graph-reader' AND datname = current_database()")
        )
        assert shown.scalar_one() > 0
    async with plant.engine.begin() as c:
        with pytest.raises(sa.exc.DBAPIError, match="outdated writer epoch"):  # no epoch is an outdated one
            await c.execute(sa.text("DELETE FROM lightrag_graph_edges"))


async def test_text_of_a_deleted_document_is_not_shown_while_its_removal_waits(
    new_library: NewLibrary, runner: GraphRunner, reader: GraphReader
) -> None:
    library = await new_library()
    await library.put("note:pump", PUMP)
    hall = await library.put("note:hall", HALL)
    await drain(runner)
    assert "E4711" in str(await reader.query(library.kb, QUESTION))
    await library.delete("note:pump")
    answer = await reader.query(library.kb, QUESTION)
    assert "E4711" not in str(answer)
    assert "turbine" not in str(answer).lower()
    assert {chunk.graph_key for chunk in answer.chunks} == {hall}


async def test_a_base_without_a_graph_answers_with_nothing_and_starts_no_process(
    new_library: NewLibrary, plant: Library, reader: GraphReader
) -> None:
    await reader.close()
    empty = await new_library()
    assert await reader.query(empty.kb, QUESTION) == GraphAnswer()
    assert (await reader.fingerprint(empty.kb)).entities == 0
    assert reader._process is None


async def test_another_bases_graph_is_never_seen(new_library: NewLibrary, plant: Library, runner: GraphRunner, reader: GraphReader) -> None:
    mine = await new_library()
    await mine.put("note:food", FOOD)
    await drain(runner)
    assert "Krypton" not in str(await reader.query(mine.kb, QUESTION))
    assert "Krypton" in str(await reader.query(plant.kb, QUESTION))


async def test_a_question_of_two_letters_is_too_short(plant: Library, reader: GraphReader) -> None:
    with pytest.raises(QueryTooShort):
        await reader.query(plant.kb, "ab")


async def test_a_dead_reader_is_said_to_be_unavailable_and_replaced(plant: Library, reader: GraphReader) -> None:
    await reader.query(plant.kb, QUESTION)
    process = reader._process
    assert process is not None
    sent = process._channel._next
    os.kill(process.pid, signal.SIGSTOP)  # what it is asked now it cannot answer
    asked = asyncio.create_task(reader.query(plant.kb, QUESTION))
    async with asyncio.timeout(5):
        while process._channel._next == sent:
            await asyncio.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(DependencyUnavailable):
        await asked
    assert (await reader.query(plant.kb, QUESTION)).chunks


async def test_an_idle_reader_goes_and_comes_back(
    plant: Library, engine: AsyncEngine, dsn: str, embedder: WordHashEmbedder, settings: Settings
) -> None:
    quick = settings.model_copy(update={"graph": settings.graph.model_copy(update={"idle": timedelta(milliseconds=50)})})
    reader = GraphReader(engine, dsn, embedder, quick)
    try:
        assert (await reader.query(plant.kb, QUESTION)).chunks
        async with asyncio.timeout(10):
            while reader._process is not None:
                await asyncio.sleep(0.01)
        assert (await reader.query(plant.kb, QUESTION)).chunks
    finally:
        await reader.close()
