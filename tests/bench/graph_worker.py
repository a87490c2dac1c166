"""A worker that does nothing but the graph: the product's runner as a process of its own, for measurements.

`python -m tests.bench.graph_worker <dsn> <model's address> <concurrency>`: prints a line when it is ready and runs the graph's steps until
its standard input closes. To each line it gets it answers how long it has held the writer, in seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from uuid import UUID

import numpy as np
import numpy.typing as npt

from shield.database.engine import create_engine
from shield.knowledge.graph.lane import WriterLane
from shield.knowledge.graph.runner import GraphRunner
from shield.knowledge.llm import create_llm
from shield.resilience import Breakers
from shield.settings import LlmSettings, PostgresSettings, load

DIM = 64


class InstantEmbedder:
    """A vector for nothing: the hash of the text, read as numbers."""

    model, dim = "instant", DIM

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of unit length, the same for the same text."""
        rows = [np.frombuffer(hashlib.shake_128(text.encode()).digest(DIM), np.uint8).astype(np.float32) - 127.5 for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows])

    async def embed_once(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The same."""
        return await self.embed(texts)


class Watch:
    """Adds up how long a lane holds the writer."""

    def __init__(self, lane: WriterLane) -> None:
        self._before, self._since = 0.0, 0.0
        self._batch = lane._batch
        lane._batch = self._timed  # type: ignore[method-assign]

    @property
    def held(self) -> float:
        """Seconds so far, those of a batch under way included."""
        return self._before + (monotonic() - self._since if self._since else 0.0)

    async def _timed(self, kb: UUID) -> bool:
        self._since = monotonic()
        try:
            return await self._batch(kb)
        finally:
            self._before, self._since = self.held, 0.0


async def main(dsn: str, url: str, concurrency: int) -> None:
    """Work until standard input closes."""
    settings = load(data_dir=Path("/nonexistent"))
    llm_settings = LlmSettings(provider="openai", base_url=url, model="stand-in", concurrency=concurrency)
    settings = settings.model_copy(update={"llm": llm_settings})
    engine = create_engine(dsn, PostgresSettings())
    llm = create_llm(llm_settings, Breakers(settings.breaker))
    assert llm is not None
    runner = GraphRunner(engine, dsn, InstantEmbedder(), llm, settings)
    watch = Watch(runner.lanes[0])
    stop = asyncio.Event()

    def heard() -> None:
        if os.read(sys.stdin.fileno(), 64):
            print(watch.held, flush=True)
        else:
            stop.set()

    asyncio.get_running_loop().add_reader(sys.stdin, heard)
    print("ready", flush=True)
    await runner.run(stop)
    await llm.close()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
