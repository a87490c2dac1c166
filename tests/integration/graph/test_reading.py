"""Texts are read by every worker and each of them once; nothing of a deleted text is kept; knowledge bases take turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
import pytest_asyncio
import sqlalchemy as sa

from shield.knowledge.graph import tasks
from shield.knowledge.graph.extract import LlmExtractor
from shield.knowledge.graph.model import GraphTask
from shield.knowledge.graph.reading import TextReader
from shield.knowledge.graph.turns import Turns
from shield.knowledge.graph.writer import GraphWriter
from shield.knowledge.llm import create_llm
from shield.resilience import Breakers
from shield.settings import LlmSettings, Settings
from tests.integration.graph.conftest import Library, NewLibrary
from tests.peers.llm import LlmPeer, llm_peer

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "openai:small shield-extract-1"
SOON = timedelta(seconds=20)

NewReader = Callable[..., TextReader]


@pytest_asyncio.fixture(loop_scope="module")
async def peer() -> AsyncIterator[LlmPeer]:
    async with llm_peer() as peer:
        yield peer


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_waits(library: Library) -> AsyncIterator[None]:
    """The module shares a database, and a reader reads for every knowledge base."""
    yield
    async with library.engine.begin() as c:
        await c.execute(sa.text("DELETE FROM graph_tasks"))


@pytest_asyncio.fixture(loop_scope="module")
async def new_reader(library: Library, peer: LlmPeer, settings: Settings) -> AsyncIterator[NewReader]:
    """Makes readers, each as if it were in a process of its own."""
    models = []

    def make(lease: float = 30, turns: Turns | None = None) -> TextReader:
        llm = create_llm(LlmSettings(provider="openai", base_url=peer.url, model="small"), Breakers(settings.breaker))
        assert llm is not None
        models.append(llm)
        extractor = LlmExtractor(library.engine, llm, width=4, max_entities=8, max_relations=6)
        graph = settings.graph.model_copy(update={"lease": timedelta(seconds=lease)})
        return TextReader(library.engine, extractor, turns or Turns(), settings.model_copy(update={"graph": graph}), lambda: None)

    yield make
    for llm in models:
        await llm.close()


async def read_all(*readers: TextReader) -> int:
    """Let readers work side by side until none finds anything; how many texts they read."""

    async def one(reader: TextReader) -> int:
        count = 0
        while await reader.step():
            count += 1
        return count

    return sum(await asyncio.gather(*(one(reader) for reader in readers)))


async def kept(library: Library) -> int:
    async with library.engine.connect() as c:
        return int(
            (await c.execute(sa.text("SELECT count(*) FROM extractions WHERE knowledge_base_id = :kb"), {"kb": library.kb.id})).scalar_one()
        )


async def until_asked(peer: LlmPeer, calls: int = 1) -> None:
    async with asyncio.timeout(20):
        while len(peer.calls) < calls:
            await asyncio.sleep(0.01)


async def test_several_workers_read_each_text_once(library: Library, peer: LlmPeer, new_reader: NewReader) -> None:
    for number in range(8):
        await library.put(f"note:{number}", *(f"Krypton meets Osvaldo in chapter {number} verse {verse}." for verse in range(5)))
    assert await read_all(*(new_reader() for _ in range(4))) == 8
    assert len(peer.calls) == 16  # four neighbouring chunks and one
    assert await kept(library) == 40
    async with library.engine.connect() as c:
        read = await c.execute(sa.text("SELECT DISTINCT extracted_with, errors, available_at <= now() FROM graph_tasks"))
        assert [tuple(row) for row in read] == [(MODEL, 0, True)]


async def test_a_text_that_documents_share_is_read_for_the_first_of_them(library: Library, peer: LlmPeer, new_reader: NewReader) -> None:
    for number in range(4):
        await library.put(f"note:{number}", "Krypton meets Osvaldo.")
    await read_all(*(new_reader() for _ in range(4)))
    assert len(peer.calls) == 1


async def test_a_dead_readers_text_is_read_by_another_once_its_claim_has_lapsed(
    library: Library, peer: LlmPeer, new_reader: NewReader
) -> None:
    await library.put("note:1", "Krypton meets Osvaldo.")
    claimed = await tasks.claim(library.engine, MODEL, [], timedelta(seconds=0.5))
    assert claimed is not None
    other = new_reader()
    assert not await other.step()
    async with asyncio.timeout(20):
        while not await other.step():
            await asyncio.sleep(0.02)
    assert await tasks.renew(library.engine, claimed, SOON) is None  # it is somebody else's
    assert len(peer.calls) == 1


async def test_a_claim_is_kept_while_the_model_is_slow(library: Library, peer: LlmPeer, new_reader: NewReader) -> None:
    peer.delay = 2.0
    await library.put("note:1", "Krypton meets Osvaldo.")
    reading = asyncio.create_task(new_reader(lease=1.5).step())
    other = new_reader()
    await until_asked(peer)
    while not reading.done():
        assert not await other.step()
        await asyncio.sleep(0.05)
    assert await reading
    assert len(peer.calls) == 1


async def test_a_reader_that_is_stopped_lets_its_text_go_at_once(library: Library, peer: LlmPeer, new_reader: NewReader) -> None:
    peer.silent = True
    await library.put("note:1", "Krypton meets Osvaldo.")
    reading = asyncio.create_task(new_reader().step())
    await until_asked(peer)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    again = await tasks.claim(library.engine, MODEL, [], SOON)
    assert again is not None
    assert again.task.errors == 0


async def test_nothing_is_kept_of_a_text_that_was_deleted_while_it_was_read(library: Library, peer: LlmPeer, new_reader: NewReader) -> None:
    peer.delay = 0.5
    await library.put("note:1", "Krypton meets Osvaldo.")
    reading = asyncio.create_task(new_reader().step())
    await until_asked(peer)
    await library.delete("note:1")
    writer = GraphWriter(library.engine, "writer", SOON)
    hold = await writer.take(library.kb.id)
    assert hold is not None
    async with writer.fenced(hold) as c:
        remove = await tasks.begin(c, library.kb.id, MODEL)
        assert remove is not None
        assert remove.operation == "remove"
        await tasks.forget_key(c, library.kb.id, remove.graph_key)
        await tasks.end(c, remove, "done")
    await reading
    assert await kept(library) == 0
    assert [status for _, status, _, _ in await library.tasks()] == ["superseded", "done"]


async def test_what_one_document_leaves_another_that_comes_does_not_pay_for_again(library: Library, peer: LlmPeer) -> None:
    key = await library.put("note:1", "Krypton meets Osvaldo.")
    async with library.engine.begin() as c:
        await c.execute(
            sa.text(
                "INSERT INTO extractions (knowledge_base_id, model, prompt_hash, graph_key, result) VALUES (:kb, 'm', 'h', :key, '{}')"
            ),
            {"kb": library.kb.id, "key": key},
        )
        await tasks.forget_key(c, library.kb.id, key)
    assert await kept(library) == 1


async def test_a_text_that_trips_a_mistake_of_ours_is_given_up_and_others_are_read(
    library: Library, new_reader: NewReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = new_reader()
    await library.put("note:1", "Krypton meets Osvaldo.")
    await library.put("note:2", "Gudrun sails past Arkona.")
    ask = reader._extractor.ask

    async def trip(task: GraphTask, key: str, chunks: list[str]) -> None:
        if "Osvaldo" in chunks[0]:
            raise KeyError("quotes the text")
        await ask(task, key, chunks)

    monkeypatch.setattr(reader._extractor, "ask", trip)
    async with asyncio.timeout(20):
        while (await library.tasks())[0][1] == "pending":
            await reader.step()
            await asyncio.sleep(0.01)
    await read_all(reader)
    assert [(status, errors, code) for _, status, errors, code in await library.tasks()] == [
        ("failed", 3, "request.internal"),
        ("pending", 0, None),
    ]
    assert await kept(library) == 1


class TestTurns:
    @pytest_asyncio.fixture(loop_scope="module")
    async def libraries(self, new_library: NewLibrary) -> list[Library]:
        """One with much to do, two that came later with less."""
        libraries = [await new_library() for _ in range(3)]
        for library, count in zip(libraries, (4, 2, 1), strict=True):
            for number in range(count):
                await library.put(f"note:{number}", f"Krypton {number} of {library.kb.name}.")
        return libraries

    async def test_knowledge_bases_are_read_in_turn(self, libraries: list[Library]) -> None:
        turns, order = Turns(), []
        while (claim := await tasks.claim(libraries[0].engine, MODEL, turns.served, SOON)) is not None:
            turns.serve(claim.task.knowledge_base_id)
            order.append([library.kb.id for library in libraries].index(claim.task.knowledge_base_id))
        assert order == [0, 1, 2, 0, 1, 0, 0]

    async def test_knowledge_bases_are_written_in_turn_and_a_busy_one_is_passed_over(self, libraries: list[Library], dsn: str) -> None:
        engine, ids = libraries[0].engine, [library.kb.id for library in libraries]
        other, turns, order = GraphWriter(engine, "other", SOON), Turns(), []
        held = await other.take(ids[1])
        assert held is not None
        for _ in range(4):
            picked = await tasks.pick(engine, "me", None, turns.served, timedelta(0))
            assert picked is not None
            turns.serve(picked)
            order.append(ids.index(picked))
        assert order == [0, 2, 0, 2]
        await other.release(held)
        assert await tasks.pick(engine, "me", None, turns.served, timedelta(0)) == ids[1]

    async def test_a_writer_that_has_just_let_go_finds_its_next_step_before_others_do(self, libraries: list[Library]) -> None:
        (base, *_), patience = libraries, timedelta(hours=1)
        other = GraphWriter(base.engine, "other", SOON)
        held = await other.take(base.kb.id)
        assert held is not None
        held.orderly = True
        await other.release(held)
        everybody_else = [library.kb.id for library in libraries[1:]]
        assert await tasks.pick(base.engine, "other", None, everybody_else, patience) == base.kb.id
        assert await tasks.pick(base.engine, "me", None, everybody_else, patience) in everybody_else
        assert await tasks.pick(base.engine, "me", None, everybody_else, timedelta(0)) == base.kb.id

    async def test_a_text_is_written_once_it_has_been_read_with_this_model(self, libraries: list[Library]) -> None:
        engine = libraries[0].engine
        assert await tasks.pick(engine, "me", MODEL, [], timedelta(0)) is None
        claim = await tasks.claim(engine, MODEL, [], SOON)
        assert claim is not None
        assert await tasks.pick(engine, "me", MODEL, [], timedelta(0)) is None
        await tasks.let_go(engine, claim, MODEL)
        assert await tasks.pick(engine, "me", MODEL, [], timedelta(0)) == claim.task.knowledge_base_id
        assert await tasks.pick(engine, "me", "another", [], timedelta(0)) is None
