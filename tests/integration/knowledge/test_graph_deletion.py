"""Documents and the real graph together: put, take in, update, delete, prove over LightRAG's own tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shield.knowledge.graph.reader import GraphReader
from shield.knowledge.graph.runner import GraphRunner
from shield.settings import Settings
from tests.integration.knowledge.conftest import Desk

SECRET = "The golden vault behind the old painting opens with the numbers seventeen, four and ninety-two."
SHARED = "Everybody in the building knows that the glass lift stops between the third and the fourth floor."
NEWER = "The silver cabinet beside the window opens with a small brass key that hangs in the kitchen."


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """On a disk: the proof reads what files hold, and in memory all that they reserve counts as held."""
    return tmp_path


@asynccontextmanager
async def graph_of(desk: Desk, dsn: str, settings: Settings) -> AsyncIterator[GraphReader]:
    """A running graph writer, and a reader."""
    stop = asyncio.Event()
    runner = GraphRunner(desk.engine, dsn, desk.embedder, None, settings)
    reader = GraphReader(desk.engine, dsn, desk.embedder, settings)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(runner.run(stop))
        try:
            yield reader
        finally:
            stop.set()
    await reader.close()


async def settled(desk: Desk) -> None:
    """When no graph step waits any more, and none has failed."""
    async with asyncio.timeout(50):
        while await desk.sql("SELECT 1 FROM graph_tasks WHERE status = 'pending' LIMIT 1"):
            await asyncio.sleep(0.1)
    assert await desk.sql("SELECT code, message FROM graph_tasks WHERE status = 'failed'") == []


async def test_nothing_of_a_deleted_document_is_left_in_the_graph(desk: Desk, dsn: str, settings: Settings) -> None:
    async with graph_of(desk, dsn, settings) as graph:
        await desk.put("other", SHARED)
        stored = await desk.put("secret", "# Vault", SECRET, SHARED)
        await settled(desk)
        await desk.put("secret", "# Vault", NEWER, SHARED)
        await settled(desk)
        before = await graph.fingerprint(desk.kb)
        job = await desk.job("delete")
        assert await desk.deletion.begin(desk.kb, stored.document_id, job)
        await settled(desk)
        proof = await desk.deletion.finish(desk.kb, stored.document_id, job)
        left = await graph.fingerprint(desk.kb)
    assert (proof.stores["found"], proof.hits, proof.sentences_shared) == ({}, 0, 1)
    assert proof.stores["tables"] > 25
    assert 0 < left.entities < before.entities


async def test_a_graph_that_only_says_it_let_go_is_found_out(desk: Desk, dsn: str, settings: Settings) -> None:
    async with graph_of(desk, dsn, settings):
        stored = await desk.put("secret", "# Vault", SECRET)
        await settled(desk)
    job = await desk.job("delete")
    await desk.deletion.begin(desk.kb, stored.document_id, job)
    await desk.sql("UPDATE graph_tasks SET status = 'done' WHERE status = 'pending'")
    proof = await desk.deletion.finish(desk.kb, stored.document_id, job)
    assert proof.hits > 5
    assert all(place.startswith("lightrag_") for place in proof.stores["found"])
