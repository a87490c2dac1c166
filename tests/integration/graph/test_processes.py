"""Several worker processes on one database: whoever dies, sleeps or is cut off, the graph ends as if nothing had happened.

The write log (`tests/chaos/write_log.py`) says for each test that nothing was committed under an outdated epoch.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import pytest_asyncio

from shield.knowledge.graph.model import GraphFingerprint
from shield.knowledge.graph.reader import fingerprint
from shield.knowledge.graph.runner import GraphRunner
from shield.settings import Settings
from tests.chaos.write_log import install, violations, written
from tests.integration.graph.conftest import Library, NewLibrary, WordHashEmbedder, drain

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = {
    "note:pump": "The Krypton pump feeds the cooling loop. A fault E4711 of the Krypton pump stops the turbine.",
    "note:loop": "The cooling loop carries water from the Krypton pump to the reactor vessel. Its valve V-17 closes by gravity.",
    "note:hall": "Spare parts of the Krypton pump lie in hall seven. The cooling loop is drained before the Krypton pump is opened.",
}


@pytest.fixture(scope="module", autouse=True)
def log(dsn: str) -> None:
    install(dsn)


@pytest_asyncio.fixture(loop_scope="module")
async def library(new_library: NewLibrary) -> Library:
    library = await new_library()
    for source, text in TEXTS.items():
        await library.put(source, text)
    return library


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(new_library: NewLibrary, runner: GraphRunner) -> GraphFingerprint:
    """The graph of the three documents when nothing happens."""
    library = await new_library()
    for source, text in TEXTS.items():
        await library.put(source, text)
    await drain(runner)
    return await graph_of(library)


async def graph_of(library: Library) -> GraphFingerprint:
    async with library.engine.connect() as connection:
        return await fingerprint(connection, library.kb)


class Worker:
    """A worker process and the graph process that it has started."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path) -> None:
        self.process, self.directory = process, directory

    async def at_its_mark(self) -> list[psutil.Process]:
        """Wait until it waits in the middle of a merge; its processes."""
        await until(lambda: (self.directory / "pid").exists() or self.process.returncode is not None)
        return [psutil.Process(self.process.pid), psutil.Process(int((self.directory / "pid").read_text()))]

    def go_on(self) -> None:
        (self.directory / "go").touch()

    async def ended(self) -> int:
        async with asyncio.timeout(60):
            return await self.process.wait()


@asynccontextmanager
async def a_worker(dsn: str, directory: Path, *options: str) -> AsyncIterator[Worker]:
    directory.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.graph.worker", dsn, str(directory), *options), stdin=asyncio.subprocess.PIPE
    )
    try:
        yield Worker(process, directory)
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGCONT)
            process.kill()
        await process.wait()


async def until(condition: Callable[[], bool], limit: float = 60) -> None:
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.02)


async def until_done(library: Library, limit: float = 60) -> None:
    async with asyncio.timeout(limit):
        while {status for _, status, _, _ in await library.tasks()} != {"done"}:
            await asyncio.sleep(0.05)


async def test_a_worker_that_slept_past_its_lease_writes_nothing_more(
    tmp_path: Path, dsn: str, library: Library, undisturbed: GraphFingerprint
) -> None:
    async with a_worker(dsn, tmp_path / "one", "--wait-at", "2") as one:
        asleep = await one.at_its_mark()
        for process in asleep:
            process.suspend()
        async with a_worker(dsn, tmp_path / "two"):
            await until_done(library)
        before = await library.rows()
        one.go_on()
        for process in reversed(asleep):
            process.resume()
        await until((tmp_path / "one" / "lost").exists)
        assert not asleep[1].is_running()
        assert await library.rows() == before
    assert await graph_of(library) == undisturbed
    assert violations(dsn) == []
    assert written(dsn)["graph"] > 0


async def test_a_killed_worker_takes_its_process_along_and_the_next_one_goes_on(
    tmp_path: Path, dsn: str, library: Library, runner: GraphRunner, undisturbed: GraphFingerprint
) -> None:
    async with a_worker(dsn, tmp_path / "one", "--wait-at", "2") as one:
        _, process = await one.at_its_mark()
        one.process.kill()
        gone, alive = await asyncio.to_thread(psutil.wait_procs, [process], timeout=5)
        assert (len(gone), alive) == (1, [])
    await drain(runner)  # once the lease is over
    assert {status for _, status, _, _ in await library.tasks()} == {"done"}
    assert await graph_of(library) == undisturbed
    assert violations(dsn) == []


async def test_a_writer_whose_connection_is_cut_in_the_middle_is_followed_by_another(
    tmp_path: Path, dsn: str, library: Library, runner: GraphRunner, undisturbed: GraphFingerprint
) -> None:
    async with Cable.to(dsn) as cable, a_worker(cable.dsn, tmp_path / "one", "--wait-at", "2") as one:
        await one.at_its_mark()
        cable.cut()
        one.go_on()
        await drain(runner)  # once the lease is over
        assert {status for _, status, _, _ in await library.tasks()} == {"done"}
        await until((tmp_path / "one" / "lost").exists)
        before = await library.rows()
        cable.mend()
        await library.put("note:late", "The reactor vessel rests on four columns.")
        await until_done(library)  # by either
        assert await library.rows() != before
    await library.delete("note:late")
    await drain(runner)
    assert await graph_of(library) == undisturbed
    assert violations(dsn) == []


async def test_workers_killed_after_each_transaction_of_a_step_lose_nothing(
    tmp_path: Path, dsn: str, library: Library, runner: GraphRunner, undisturbed: GraphFingerprint
) -> None:
    """1 = the try is counted, 2 = the document is counted in (LightRAG knows nothing yet), 3 = LightRAG has it and the step has ended."""
    for number in (1, 2, 3):
        async with a_worker(dsn, tmp_path / str(number), "--die-at", str(number)) as one:
            assert await one.ended() == -signal.SIGKILL
    await drain(runner)
    assert {(status, code) for _, status, _, code in await library.tasks()} == {("done", None)}
    assert await graph_of(library) == undisturbed
    assert violations(dsn) == []


async def test_a_process_is_turned_to_the_next_knowledge_base_and_carries_its_epoch(
    dsn: str, library: Library, new_library: NewLibrary, runner: GraphRunner, undisturbed: GraphFingerprint
) -> None:
    await drain(runner)
    assert runner.lanes[0].session.process is not None
    pid = runner.lanes[0].session.process.pid
    other = await new_library()
    for source, text in TEXTS.items():
        await other.put(source, text)
    await drain(runner)
    assert runner.lanes[0].session.process.pid == pid
    assert await graph_of(other) == await graph_of(library) == undisturbed
    assert violations(dsn) == []


class Meeting(WordHashEmbedder):
    """Waits at its first request for vectors until the other one has come."""

    def __init__(self) -> None:
        super().__init__()
        self._both = asyncio.Barrier(2)
        self.met = False

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if not self.met:
            async with asyncio.timeout(60):
                await self._both.wait()
            self.met = True
        return await super().embed(texts)


async def test_a_process_writes_as_many_knowledge_bases_at_once_as_it_has_lanes(
    dsn: str, new_library: NewLibrary, settings: Settings, runner: GraphRunner, undisturbed: GraphFingerprint
) -> None:
    libraries = [await new_library() for _ in range(2)]
    for library in libraries:
        for source, text in TEXTS.items():
            await library.put(source, text)
    embedder, worker = Meeting(), settings.worker.model_copy(update={"graph": 2})
    both = GraphRunner(libraries[0].engine, dsn, embedder, None, settings.model_copy(update={"worker": worker}))
    stop = asyncio.Event()
    running = asyncio.create_task(both.run(stop))
    for library in libraries:
        await until_done(library)
    stop.set()
    await running
    assert embedder.met
    assert [await graph_of(library) for library in libraries] == [undisturbed, undisturbed]
    assert violations(dsn) == []


class Cable:
    """A TCP way to a server that listens on a Unix socket, which can be cut: connections are reset, new ones refused."""

    def __init__(self, dsn: str) -> None:
        self._far, self.dsn = dsn, ""
        self._ends: set[asyncio.StreamWriter] = set()
        self._whole = True

    @classmethod
    @asynccontextmanager
    async def to(cls, dsn: str) -> AsyncIterator[Cable]:
        """A cable to the server of `dsn`."""
        cable = cls(dsn)
        server = await asyncio.start_server(cable.carry, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        cable.dsn = f"postgresql://postgres:secret@127.0.0.1:{port}{urlsplit(dsn).path}"
        try:
            yield cable
        finally:
            cable.cut()
            server.close()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if not self._whole:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(f"{parse_qs(urlsplit(self._far).query)['host'][0]}/.s.PGSQL.5432")
        self._ends |= {writer, far_writer}
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        self._ends -= {writer, far_writer}

    def cut(self) -> None:
        """Cut it."""
        self._whole = False
        for end in self._ends:
            end.transport.abort()

    def mend(self) -> None:
        """Let connections through again."""
        self._whole = True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
