"""Whoever dies or is paused, wherever: the graph ends as if nothing had happened, and nobody writes after his time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.errors import CircuitOpen, DependencyRejected, DependencyUnavailable, LeaseLost, ShieldError
from shield.knowledge.graph.model import GraphFingerprint
from shield.knowledge.graph.reader import GraphReader
from shield.knowledge.graph.runner import GraphRunner
from shield.knowledge.graph.writer import GraphWriter
from shield.settings import Settings
from tests.integration.graph.conftest import Library, NewLibrary, WordHashEmbedder, drain

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUMP = "The Krypton pump feeds the cooling loop. A fault E4711 of the Krypton pump stops the turbine."
LOOP = "The cooling loop carries water from the Krypton pump to the reactor vessel. Its valve V-17 closes by gravity."
HALL = "Spare parts of the Krypton pump lie in hall seven. The cooling loop is drained before the Krypton pump is opened."


class Troubled(WordHashEmbedder):
    """Does something at a given request for vectors; `at` counts from 1, 0 = at each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.at = -1
        self.trouble: Callable[[], object] = lambda: None
        self.wait: asyncio.Event | None = None

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls += 1
        if self.at in (0, self.calls):
            self.trouble()
            if self.wait is not None:
                await self.wait.wait()
        return await super().embed(texts)


@pytest.fixture
def embedder() -> Troubled:
    return Troubled()


@pytest_asyncio.fixture(loop_scope="module")
async def runner(engine: AsyncEngine, dsn: str, embedder: Troubled, settings: Settings) -> AsyncIterator[GraphRunner]:
    runner = GraphRunner(engine, dsn, embedder, None, settings)
    yield runner
    await runner.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader(engine: AsyncEngine, dsn: str, settings: Settings) -> GraphReader:
    return GraphReader(engine, dsn, WordHashEmbedder(), settings)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(new_library: NewLibrary, engine: AsyncEngine, dsn: str, settings: Settings, reader: GraphReader) -> GraphFingerprint:
    """The graph of the three documents when nothing happens."""
    library = await new_library()
    await put_all(library)
    runner = GraphRunner(engine, dsn, WordHashEmbedder(), None, settings)
    try:
        await drain(runner)
    finally:
        await runner.close()
    return await reader.fingerprint(library.kb)


async def put_all(library: Library) -> None:
    for source, text in {"note:pump": PUMP, "note:loop": LOOP, "note:hall": HALL}.items():
        await library.put(source, text)


def killer(runner: GraphRunner, number: int = signal.SIGKILL) -> Callable[[], None]:
    def kill() -> None:
        assert runner.lanes[0].session.process is not None
        os.kill(runner.lanes[0].session.process.pid, number)

    return kill


@pytest.mark.parametrize("at", [1, 2, 3, 5])
async def test_a_process_killed_while_it_writes_leaves_no_trace_of_it(
    at: int, library: Library, runner: GraphRunner, embedder: Troubled, reader: GraphReader, undisturbed: GraphFingerprint
) -> None:
    await put_all(library)
    embedder.at, embedder.trouble = at, killer(runner)
    await drain(runner)
    assert [(status, errors) for _, status, errors, _ in await library.tasks()].count(("done", 0)) >= 2
    assert {status for _, status, _, _ in await library.tasks()} == {"done"}
    assert await reader.fingerprint(library.kb) == undisturbed


@pytest.mark.parametrize("at", [1, 2])
async def test_a_process_killed_while_it_removes_leaves_no_trace_of_it(
    at: int, library: Library, runner: GraphRunner, embedder: Troubled, reader: GraphReader, undisturbed: GraphFingerprint
) -> None:
    await put_all(library)
    await library.put("note:gone", "The Krypton pump and the cooling loop were painted green by Osvaldo.")
    await drain(runner)
    runner.lanes[0].vectors._memory.clear()  # so that what is rebuilt is asked for again
    embedder.at, embedder.trouble = embedder.calls + at, killer(runner)
    await library.delete("note:gone")
    await drain(runner)
    assert await reader.fingerprint(library.kb) == undisturbed
    assert await library.holding("Osvaldo") == []


async def test_there_is_nothing_to_repair_after_an_orderly_end(library: Library, runner: GraphRunner) -> None:
    await put_all(library)
    await library.put("note:gone", "The Krypton pump and the cooling loop were painted green by Osvaldo.")
    await drain(runner)
    await library.delete("note:gone")
    await drain(runner)
    assert runner.lanes[0].session.process is not None
    before = await library.rows()
    assert await runner.lanes[0].session.process.call("repair", timedelta(seconds=20), workspace=library.kb.id.hex) == 0
    assert await library.rows() == before


async def test_a_process_that_dies_each_time_is_given_up_and_the_others_go_on(
    library: Library, runner: GraphRunner, embedder: Troubled, new_library: NewLibrary
) -> None:
    await library.put("note:pump", PUMP)
    embedder.at, embedder.trouble = 0, killer(runner)
    await drain(runner)
    assert await library.tasks() == [("add", "failed", 3, "document.graph_failed")]
    embedder.at = -1
    await library.put("note:loop", LOOP)
    await drain(runner)
    assert (await library.tasks())[1][1] == "done"


async def test_a_step_that_took_its_worker_down_too_often_is_given_up(engine: AsyncEngine, library: Library, runner: GraphRunner) -> None:
    await library.put("note:pump", PUMP)
    async with engine.begin() as c:
        await c.execute(sa.text("UPDATE graph_tasks SET errors = 6 WHERE knowledge_base_id = :kb"), {"kb": library.kb.id})
    await drain(runner)
    assert await library.tasks() == [("add", "failed", 7, "job.retries_exhausted")]


class TestErrorsOfADependency:
    @pytest.mark.parametrize(
        ("error", "end"),
        [
            (DependencyUnavailable(service="embedding", late=True), ("add", "failed", 3, "dependency.unavailable")),
            (DependencyRejected(service="embedding"), ("add", "failed", 1, "dependency.rejected")),
        ],
    )
    async def test_its_code_is_the_tasks(
        self, error: ShieldError, end: tuple[str, str, int, str], library: Library, runner: GraphRunner, embedder: Troubled
    ) -> None:
        def fail() -> None:
            raise error

        embedder.at, embedder.trouble = 0, fail
        await library.put("note:pump", PUMP)
        await drain(runner)
        assert await library.tasks() == [end]

    @pytest.mark.parametrize("error", [CircuitOpen(retry_after=0.01), DependencyUnavailable(service="embedding")])
    async def test_an_outage_costs_nothing_and_is_waited_for(
        self, error: ShieldError, library: Library, runner: GraphRunner, embedder: Troubled
    ) -> None:
        def fail() -> None:
            if embedder.calls > 8:
                embedder.at = -1
            raise error

        embedder.at, embedder.trouble = 0, fail
        await library.put("note:pump", PUMP)
        await drain(runner)
        assert [(status, errors) for _, status, errors, _ in await library.tasks()] == [("done", 0)]
        assert embedder.calls > 8


class TestStopping:
    async def test_a_running_step_is_handed_back_at_once_and_its_process_ends(
        self, library: Library, runner: GraphRunner, embedder: Troubled
    ) -> None:
        embedder.at, embedder.wait = 1, asyncio.Event()
        await library.put("note:pump", PUMP)
        stop = asyncio.Event()
        running = asyncio.create_task(runner.run(stop))
        async with asyncio.timeout(30):
            while embedder.calls < 1:
                await asyncio.sleep(0.01)
        assert runner.lanes[0].session.process is not None
        process = psutil.Process(runner.lanes[0].session.process.pid)
        stop.set()
        async with asyncio.timeout(3):
            await running
        assert not process.is_running()
        assert await library.tasks() == [("add", "pending", 0, None)]
        async with library.engine.connect() as c:
            free = await c.execute(sa.text("SELECT lease_until < now() FROM kb_writer WHERE kb = :kb"), {"kb": library.kb.id.hex})
            assert free.scalar_one()
        async with library.engine.begin() as c:  # other tests count what their runners do
            await c.execute(sa.text("DELETE FROM graph_tasks WHERE knowledge_base_id = :kb"), {"kb": library.kb.id})

    async def test_an_idle_runner_lets_its_process_go(self, dsn: str, library: Library, settings: Settings) -> None:
        quick = settings.model_copy(update={"graph": settings.graph.model_copy(update={"idle": timedelta(0)})})
        runner = GraphRunner(library.engine, dsn, WordHashEmbedder(), None, quick)
        await library.put("note:pump", PUMP)
        stop = asyncio.Event()
        running = asyncio.create_task(runner.run(stop))
        async with asyncio.timeout(30):
            while (await library.tasks())[0][1] != "done" or runner.lanes[0].session.process is not None:
                await asyncio.sleep(0.02)
        stop.set()
        await running


class TestTheWriter:
    async def test_there_is_one_and_its_epoch_grows(self, library: Library) -> None:
        kb = library.kb.id
        one, two = (GraphWriter(library.engine, name, timedelta(seconds=30)) for name in ("one", "two"))
        first = await one.take(kb)
        assert first is not None
        assert (first.epoch, first.orderly) == (1, True)
        assert await two.take(kb) is None
        again = await one.take(kb, keep=first.epoch)
        assert again is not None
        assert again.epoch == first.epoch
        await one.release(first)
        second = await two.take(kb)
        assert second is not None
        assert (second.epoch, second.orderly) == (2, True)
        with pytest.raises(LeaseLost):
            await one.renew(first)
        with pytest.raises(LeaseLost):
            async with one.fenced(first):
                raise AssertionError

    async def test_its_successor_learns_whether_it_ended_in_order(self, library: Library) -> None:
        writer = GraphWriter(library.engine, "one", timedelta(seconds=0))
        first = await writer.take(library.kb.id)
        assert first is not None
        lapsed = await writer.take(library.kb.id)
        assert lapsed is not None
        assert not lapsed.orderly
        await writer.release(lapsed)
        handed_over = await writer.take(library.kb.id)
        assert handed_over is not None
        assert not handed_over.orderly
        handed_over.orderly = True
        await writer.release(handed_over)
        last = await writer.take(library.kb.id)
        assert last is not None
        assert last.orderly

    async def test_an_outdated_epoch_is_refused_by_the_database(self, library: Library, undisturbed: GraphFingerprint) -> None:
        writer = GraphWriter(library.engine, "one", timedelta(seconds=30))
        hold = await writer.take(library.kb.id)
        assert hold is not None
        statement = sa.text(
            "INSERT INTO lightrag_graph_nodes (workspace, namespace, id, properties) VALUES (:ws, 'chunk_entity_relation', 'x', '{}')"
        )
        async with writer.fenced(hold) as c:
            await c.execute(statement, {"ws": library.kb.id.hex})
        async with library.engine.begin() as c:
            await carry(c, library, hold.epoch - 1)
            with pytest.raises(DBAPIError, match="outdated writer epoch"):
                await c.execute(statement, {"ws": library.kb.id.hex})

    async def test_no_new_epoch_begins_before_the_last_write_has_ended(self, library: Library, undisturbed: GraphFingerprint) -> None:
        old, new = (GraphWriter(library.engine, name, timedelta(seconds=30)) for name in ("old", "new"))
        hold = await old.take(library.kb.id)
        assert hold is not None
        async with library.engine.begin() as c:
            await carry(c, library, hold.epoch)
            await c.execute(sa.text("DELETE FROM lightrag_graph_edges WHERE workspace = :ws"), {"ws": library.kb.id.hex})
            await old.release(hold)
            taking = asyncio.create_task(new.take(library.kb.id))
            done, _ = await asyncio.wait({taking}, timeout=0.3)
            assert not done
        taken = await taking
        assert taken is not None
        assert taken.epoch == hold.epoch + 1


async def carry(connection: AsyncConnection, library: Library, epoch: int) -> None:
    """Make a connection one of the writer's of this epoch."""
    await connection.execute(
        sa.text("SELECT set_config('shield.kb', :kb, true), set_config('shield.epoch', :epoch, true)"),
        {"kb": library.kb.id.hex, "epoch": str(epoch)},
    )
