"""One knowledge base, many workers: how much faster its graph grows, and how much of the work is serial.

`python -m tests.bench.graph_scaling [--workers 1,4] [--concurrency 2,4] [--documents 40] [--chunks 10] [--delay 0.3]`

Real worker processes (`tests.bench.graph_worker`) on a private PostgreSQL, a language model that takes `delay` a call, an embedder
that takes nothing. A run begins with workers that are up and documents that are stored, and ends when no step waits. Of `concurrency`
calls in flight a worker keeps one for questions. Printed: seconds, the share of them in which a writer was held (the serial part), the
speed-up over one worker, and whether all graphs are equal. Exit code 1 if they are not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from uuid import uuid4

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.embedded import EmbeddedPostgres
from shield.database.engine import create_engine
from shield.database.migrate import upgrade
from shield.knowledge.graph.model import GraphFingerprint
from shield.knowledge.graph.reader import fingerprint
from shield.knowledge.model import KnowledgeBase
from shield.settings import PostgresSettings
from tests.bench.graph_worker import DIM
from tests.integration.graph.conftest import Library
from tests.peers.llm import LlmPeer, llm_peer

_LIMIT = 900.0  # seconds a run
_NAMES = [
    "".join(pair).capitalize()
    for pair in itertools.product(("kra", "osva", "bea", "cosi", "dag", "emi", "fri", "gud"), ("lan", "to", "rix", "mund", "ne"))
]


@dataclass(frozen=True)
class Measured:
    """One run."""

    workers: int
    concurrency: int
    seconds: float
    held: float
    calls: int
    graph: GraphFingerprint


def documents(count: int, chunks: int) -> list[list[str]]:
    """Texts whose names meet again in other texts, as names do."""
    dice = random.Random(7)  # noqa: S311  the same corpus every time
    corpus = []
    for number in range(count):
        local = [f"{name}{chr(97 + number % 26)}{chr(97 + number // 26)}" for name in dice.sample(_NAMES, 12)]
        corpus.append([_chunk(dice, number, part, local) for part in range(chunks)])
    return corpus


def _chunk(dice: random.Random, number: int, part: int, local: Sequence[str]) -> str:
    names = dice.sample(_NAMES, 3) + dice.sample(list(local), 5)
    return (
        f"in part {part} of file {number} "
        + " ".join(f"{name} was seen near the old harbour with its gates and" for name in names)
        + " nobody."
    )


@contextlib.asynccontextmanager
async def database(server: EmbeddedPostgres) -> AsyncIterator[tuple[str, AsyncEngine]]:
    """A fresh, migrated database."""
    name = f"bench_{uuid4().hex[:8]}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    dsn = server.dsn.replace("/postgres?", f"/{name}?")
    engine = create_engine(dsn, PostgresSettings())
    await upgrade(engine)
    yield dsn, engine
    await engine.dispose()


async def a_library(engine: AsyncEngine) -> Library:
    """An empty knowledge base."""
    async with engine.begin() as c:
        row = (
            await c.execute(
                sa.text(
                    "INSERT INTO knowledge_bases (name, embedding_model, embedding_dim, owner) VALUES ('bench', 'instant', :dim, 'local')"
                    " RETURNING id, created_at"
                ),
                {"dim": DIM},
            )
        ).one()
    return Library(engine, KnowledgeBase(row.id, "bench", "", True, "instant", DIM, "local", row.created_at))


async def release(engine: AsyncEngine, when: str) -> None:
    """Let all steps that wait begin at a time."""
    async with engine.begin() as c:
        await c.execute(sa.text("UPDATE graph_tasks SET available_at = CAST(:at AS timestamptz) WHERE status = 'pending'"), {"at": when})


async def until_done(engine: AsyncEngine) -> None:
    """Wait until no step that may begin waits."""
    waits = sa.text("SELECT EXISTS (SELECT 1 FROM graph_tasks WHERE status = 'pending' AND available_at < 'infinity')")
    async with asyncio.timeout(_LIMIT):
        while True:
            async with engine.connect() as c:
                if not (await c.execute(waits)).scalar_one():
                    return
            await asyncio.sleep(0.05)


async def held(workers: Sequence[asyncio.subprocess.Process]) -> float:
    """How long they have held the writer, together."""
    total = 0.0
    for worker in workers:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(b"?\n")
        total += float(await worker.stdout.readline())
    return total


async def run(server: EmbeddedPostgres, peer: LlmPeer, workers: int, concurrency: int, corpus: list[list[str]]) -> Measured:
    """One run."""
    async with database(server) as (dsn, engine):
        library = await a_library(engine)
        for number, chunks in enumerate(corpus):
            await library.put(f"note:{number}", *chunks)
        await release(engine, "infinity")
        started = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.graph_worker", dsn, peer.url, str(concurrency)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for _ in range(workers)
        ]
        try:
            for process in started:
                assert process.stdout is not None
                await process.stdout.readline()
            await library.put("warm-up", "Nobody")  # LightRAG's tables are made once a database
            await until_done(engine)
            warm = await held(started)
            before, began = len(peer.calls), monotonic()
            await release(engine, "now")
            await until_done(engine)
            seconds, calls = monotonic() - began, len(peer.calls) - before
            serial = await held(started) - warm
            await asyncio.gather(*(process.communicate(b"") for process in started))
        finally:
            for process in started:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        async with engine.connect() as connection:
            graph = await fingerprint(connection, library.kb)
        return Measured(workers, concurrency, seconds, serial, calls, graph)


async def main(arguments: argparse.Namespace) -> int:
    """All runs and the table."""
    corpus = documents(arguments.documents, arguments.chunks)
    results: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="shield-bench-") as directory:
        Path(directory).chmod(0o711)
        with EmbeddedPostgres(Path(directory) / "data") as server:
            async with llm_peer() as peer:
                peer.delay = arguments.delay
                for concurrency in arguments.concurrency:
                    base: float | None = None
                    for workers in arguments.workers:
                        m = await run(server, peer, workers, concurrency, corpus)
                        base = base or m.seconds
                        results.append(m)
                        print(
                            f"concurrency {m.concurrency}, workers {m.workers}: {m.seconds:6.1f} s, {m.calls} calls,"
                            f" writer held {m.held:5.1f} s ({m.held / m.seconds:.0%}), speed-up {base / m.seconds:.2f},"
                            f" {m.graph.entities} entities, {m.graph.relations} relations, graph {m.graph.digest[:12]}",
                            flush=True,
                        )
    equal = len({m.graph for m in results}) == 1
    print("kb hash equal" if equal else "kb hash DIFFERS")
    return 0 if equal else 1


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="graph_scaling")
    parser.add_argument("--workers", type=_numbers, default=[1, 4])
    parser.add_argument("--concurrency", type=_numbers, default=[2, 4], help="calls to the model in flight at once, a worker")
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--delay", type=float, default=0.3, help="seconds a call")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(_arguments())))
