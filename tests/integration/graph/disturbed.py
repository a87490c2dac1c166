"""A worker that can be killed: runs the graph's steps until there are none, its embedder pausing where the test says.

`python -m tests.integration.graph.disturbed <dsn> <file>`: at the second request for vectors it writes the graph process's id
into the file and waits to be killed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shield.database.engine import create_engine
from shield.knowledge.graph.runner import GraphRunner
from shield.settings import PostgresSettings, load
from tests.integration.graph.conftest import WordHashEmbedder


class Pausing(WordHashEmbedder):
    runner: GraphRunner
    file: Path
    calls = 0

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls += 1
        if self.calls == 2:
            assert self.runner.lanes[0].session.process is not None
            self.file.write_text(str(self.runner.lanes[0].session.process.pid))
            await asyncio.sleep(60)
        return await super().embed(texts)


async def main(dsn: str, file: Path) -> None:
    embedder = Pausing()
    embedder.file = file
    engine = create_engine(dsn, PostgresSettings())
    settings = load(data_dir=file.parent, graph={"lease": 2})
    embedder.runner = GraphRunner(engine, dsn, embedder, None, settings)
    await embedder.runner.step()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
