"""Restoring vectors from PostgreSQL, on Qdrant Edge and on the peer of a Qdrant server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.jobs.model import JobKind, Status
from shield.knowledge.bm25 import document_vector
from shield.knowledge.filling import Filler
from shield.knowledge.model import point_id
from shield.knowledge.vectors.edge import EdgeIndex
from shield.knowledge.vectors.port import Point, SpaceKey, VectorIndex
from shield.knowledge.vectors.qdrant import _collection
from tests.contract.conftest import a_qdrant_index
from tests.integration.knowledge.conftest import Around, Crash
from tests.integration.knowledge.moving import NEW, OLD, TOPICS, Moving, about, moving
from tests.peers.qdrant import QdrantPeer

on_both = pytest.mark.parametrize("index", ["edge", "qdrant_peer"], indirect=True)


@pytest.fixture
async def index(request: pytest.FixtureRequest, data_dir: Path) -> AsyncIterator[VectorIndex]:
    """Edge, unless a test wants the peer too."""
    if getattr(request, "param", "edge") == "edge":
        edge = EdgeIndex(data_dir / "vectors")
        yield edge
        await edge.close()
    else:
        with QdrantPeer() as peer:
            server = a_qdrant_index(peer.url)
            server.peer = peer  # type: ignore[attr-defined]
            yield server
            await server.close()


@pytest.fixture
async def moved(engine: AsyncEngine, index: VectorIndex, data_dir: Path) -> AsyncIterator[Moving]:
    async with moving(engine, index, data_dir) as moved:
        await moved.stock()
        yield moved


async def wipe(moved: Moving, *spaces: SpaceKey) -> None:
    """Lose collections entirely, behind everybody's back."""
    for space in spaces or (moved.old,):
        peer: QdrantPeer | None = getattr(moved.desk.vectors, "peer", None)
        if peer is None:
            await moved.desk.vectors.drop(space)
        else:
            peer.app.state.client.delete_collection(_collection(space))


async def answers(moved: Moving) -> list[list[str]]:
    return [await moved.texts(topic) for topic in TOPICS]


@on_both
async def test_a_wiped_collection_is_restored_with_the_same_hash_and_answers_and_nothing_is_embedded(moved: Moving) -> None:
    before, expected, asked = await moved.desk.fingerprint(), await answers(moved), sum(moved.peer.texts.values())
    await wipe(moved)
    assert await moved.texts("main valve") == []
    checked = (await moved.checked())[OLD]
    assert (checked.expected, checked.present, len(checked.incomplete)) == (len(TOPICS), 0, len(TOPICS))
    job = await moved.rebuild()
    assert (job.status, job.outcome, job.progress.documents) == (Status.COMPLETED, "complete", len(TOPICS))
    assert await moved.desk.fingerprint() == before
    assert await answers(moved) == expected
    assert sum(moved.peer.texts.values()) == asked  # all from the cache; the questions are remembered


async def test_vectors_that_are_not_cached_any_more_are_made_again(moved: Moving) -> None:
    await wipe(moved)
    await moved.desk.sql("DELETE FROM embeddings")
    assert (await moved.rebuild()).outcome == "complete"
    assert (await moved.checked())[OLD].missing == 0
    assert moved.peer.texts[f"{OLD}:main valve\n{about('main valve')}"] == 2


@on_both
async def test_filter_fields_are_restored_as_they_were(moved: Moving) -> None:
    await moved.desk.put("https://example.org/a", about("boiler"), metadata={"size": 5, "team": "ops", "draft": True})
    before = sorted([(key, dict(payload)) async for key, payload in moved.desk.vectors.scan(moved.old)])
    await wipe(moved)
    await moved.rebuild()
    assert sorted([(key, dict(payload)) async for key, payload in moved.desk.vectors.scan(moved.old)]) == before


async def test_a_rebuild_that_is_killed_goes_on_where_it_stopped(moved: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shield.knowledge.filling.DOCUMENTS", 1)
    before = await moved.desk.fingerprint()
    await wipe(moved)
    filler = moved.tools.filler

    class Once(Filler):
        async def fill(self, collection: Any, *args: Any, **more: Any) -> Any:
            await filler.fill(collection, steps=2)
            raise Crash

    killed = replace(moved.tools, filler=Once(moved.desk.engine, moved.desk.vectors, moved.desk.embedder))
    again = await moved.cut_off(await moved.claim(JobKind.REBUILD), killed)
    assert (await moved.checked())[OLD].present == 2
    assert await moved.desk.count("missing_points") == len(TOPICS) - 2
    assert (await moved.run(again)).outcome == "complete"
    assert await moved.desk.fingerprint() == before


async def test_documents_that_come_and_change_meanwhile_are_right_in_the_end(moved: Moving) -> None:
    class Busy(Around):
        count = 0

        async def upsert(self, space: SpaceKey, points: Any) -> None:
            await self.inner.upsert(space, points)
            self.count += 1
            if self.count == 1:
                await moved.desk.put("main-valve", about("main valve", 2))
                await moved.desk.put("late", about("boiler"))

    await wipe(moved)
    job = await moved.through(Busy(moved.desk.vectors)).rebuild()
    assert job.outcome == "complete"
    checked = (await moved.checked())[OLD]
    assert (checked.missing, checked.other, checked.expected) == (0, 0, len(TOPICS) + 1)
    assert about("main valve", 2) in await moved.texts("main valve")


async def test_what_is_lost_while_a_rebuild_runs_is_found_by_its_own_check(moved: Moving) -> None:
    class Losing(Around):
        lost = False

        async def upsert(self, space: SpaceKey, points: Any) -> None:
            await self.inner.upsert(space, points)
            if not self.lost:
                self.lost = True
                await wipe(moved)

    assert (await moved.through(Losing(moved.desk.vectors)).rebuild()).outcome == "complete"
    assert (await moved.checked())[OLD].missing == 0


@on_both
async def test_points_that_belong_to_nothing_are_removed(moved: Moving) -> None:
    stored = await moved.desk.put("late", about("boiler"))

    def stray(revision: int, ordinal: int) -> Point:
        key = point_id(moved.desk.kb.id, stored.document_id, revision, ordinal)
        return Point(key, stored.document_id, revision, ordinal, np.ones(32, dtype=np.float32), document_vector("boiler"))

    assert stored.revision is not None
    await moved.desk.vectors.upsert(moved.old, [stray(stored.revision, 9), stray(99, 0)])
    assert (await moved.checked())[OLD].other == 2
    await moved.rebuild()
    checked = (await moved.checked())[OLD]
    assert (checked.other, checked.missing) == (0, 0)


async def test_a_fresh_rebuild_begins_with_an_empty_index(moved: Moving) -> None:
    before = await moved.desk.fingerprint()
    assert (await moved.rebuild(fresh=True)).outcome == "complete"
    assert await moved.desk.fingerprint() == before


async def test_a_collection_kept_for_a_rollback_is_restored_too(moved: Moving) -> None:
    await moved.reindex()
    await wipe(moved, moved.old, moved.new)
    assert (await moved.rebuild()).outcome == "complete"
    assert {model: checked.missing for model, checked in (await moved.checked()).items()} == {OLD: 0, NEW: 0}
    await moved.tools.reindexer.rollback(moved.desk.kb)
    assert about("main valve") in await moved.texts("main valve")


async def test_an_index_that_fails_leaves_the_job_to_be_tried_again(moved: Moving) -> None:
    class Away(Around):
        async def upsert(self, *_: Any) -> None:
            from shield.errors import CircuitOpen

            raise CircuitOpen(service="qdrant")

    job = await moved.through(Away(moved.desk.vectors)).rebuild()
    assert (job.status, job.waiting_for) == (Status.PENDING, "qdrant")
    assert await moved.desk.count("missing_points") == len(TOPICS)
