"""The graph's runner as a process of its own, that can be watched, paused and killed at a chosen moment.

`python -m tests.integration.graph.worker <dsn> <directory> [--wait-at N] [--die-at N]`. It runs until its standard input closes. At the Nth request
for vectors it writes the graph process's id into `<directory>/pid` and goes on once `<directory>/go` exists; after the Nth transaction under the writer's
fence it kills itself. When it has lost the writer, `<directory>/lost` exists.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.database.engine import create_engine
from shield.knowledge.graph.lane import WriterLane
from shield.knowledge.graph.runner import GraphRunner
from shield.knowledge.graph.writer import Hold
from shield.settings import PostgresSettings, load
from tests.integration.graph.conftest import WordHashEmbedder

LEASE = 2.0


class Waiting(WordHashEmbedder):
    """Waits at one request for vectors until it is told to go on."""

    lane: WriterLane

    def __init__(self, directory: Path, at: int) -> None:
        super().__init__()
        self._directory, self._at, self._calls = directory, at, 0

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self._calls += 1
        if self._calls == self._at:
            assert self.lane.session.process is not None
            _write(self._directory / "pid", str(self.lane.session.process.pid))
            while not (self._directory / "go").exists():
                await asyncio.sleep(0.02)
        return await super().embed(texts)


def die_after(lane: WriterLane, number: int) -> None:
    """Let the process kill itself once it has committed so many transactions under the fence."""
    fenced, left = lane.writer.fenced, number

    @asynccontextmanager
    async def counted(hold: Hold) -> AsyncIterator[AsyncConnection]:
        nonlocal left
        async with fenced(hold) as connection:
            yield connection
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    lane.writer.fenced = counted  # type: ignore[method-assign]


def tell_when_lost(lane: WriterLane, directory: Path) -> None:
    """Leave a mark when the lane kills its process, which it does when it has lost the writer."""
    kill = lane.session.kill

    async def told() -> None:
        running = lane.session.process is not None
        await kill()
        if running:
            _write(directory / "lost", "1")

    lane.session.kill = told  # type: ignore[method-assign]


async def main(arguments: argparse.Namespace) -> None:
    """Run until standard input closes."""
    embedder = Waiting(arguments.directory, arguments.wait_at)
    engine = create_engine(arguments.dsn, PostgresSettings())
    settings = load(data_dir=arguments.directory, graph={"lease": LEASE}, jobs={"relay": 0.1})
    runner = GraphRunner(engine, arguments.dsn, embedder, None, settings)
    (lane,) = runner.lanes
    embedder.lane = lane
    tell_when_lost(lane, arguments.directory)
    if arguments.die_at:
        die_after(lane, arguments.die_at)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    await runner.run(stop)
    await engine.dispose()


def _write(path: Path, text: str) -> None:
    half = path.with_suffix(".half")
    half.write_text(text)
    half.rename(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--wait-at", type=int, default=0)
    parser.add_argument("--die-at", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(_arguments()))
