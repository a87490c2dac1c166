"""What only the server's adapter has: answers that are errors, time limits, the breaker, a key, a collection that goes away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_client import models

from shield.errors import (
    CircuitOpen,
    DependencyMisconfigured,
    DependencyRejected,
    DependencyThrottled,
    DependencyUnavailable,
    ShieldError,
)
from shield.knowledge.vectors.port import SpaceKey, VectorFilter
from shield.knowledge.vectors.qdrant import QdrantIndex, _collection
from tests.contract.conftest import a_qdrant_index
from tests.contract.test_vectors import DIM, a_point, a_space, dense, find, the_corpus
from tests.peers.qdrant import QdrantPeer


@pytest.fixture
async def index(qdrant_peer: QdrantPeer) -> AsyncIterator[QdrantIndex]:
    qdrant_peer.app.state.failures.clear()
    index = a_qdrant_index(qdrant_peer.url)
    yield index
    qdrant_peer.app.state.failures.clear()
    await index.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, DependencyRejected),
        (401, DependencyMisconfigured),
        (403, DependencyMisconfigured),
        (404, DependencyMisconfigured),
        (408, DependencyUnavailable),
        (429, DependencyThrottled),
        (500, DependencyUnavailable),
        (503, DependencyUnavailable),
    ],
)
async def test_an_answer_that_is_an_error_becomes_ours(
    index: QdrantIndex, qdrant_peer: QdrantPeer, status: int, error: type[ShieldError]
) -> None:
    qdrant_peer.fail_next(status)
    with pytest.raises(error) as raised:
        await index.count(a_space())
    assert raised.value.retry_after == (3 if status == 429 else None)


async def test_a_server_that_keeps_failing_is_left_alone(index: QdrantIndex, qdrant_peer: QdrantPeer) -> None:
    qdrant_peer.fail_next(*[500] * 9)
    for _ in range(5):
        with pytest.raises(DependencyUnavailable):
            await index.ping()
    with pytest.raises(CircuitOpen):
        await index.ping()
    assert len(qdrant_peer.app.state.failures) == 4


async def test_unknown_collections_are_answers_not_failures(index: QdrantIndex) -> None:
    for _ in range(9):
        assert await index.count(a_space()) == 0
    await index.ping()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    index = a_qdrant_index("http://127.0.0.1:9")
    with pytest.raises(DependencyUnavailable):
        await index.ping()
    await index.close()


async def test_a_server_that_does_not_answer_in_time_is_unavailable() -> None:
    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    index = a_qdrant_index(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.2)
    with pytest.raises(DependencyUnavailable):
        await index.ping()
    await index.close()
    server.close()


async def test_a_missing_or_wrong_key_is_misconfigured() -> None:
    with QdrantPeer(api_key="right") as peer:
        for key in (None, "wrong"):
            index = a_qdrant_index(peer.url, key)
            with pytest.raises(DependencyMisconfigured):
                await index.ping()
            await index.close()
        index = a_qdrant_index(peer.url, "right")
        await index.upsert(a_space(), [a_point("pump")])
        await index.close()


async def test_a_collection_that_somebody_removed_is_made_again(index: QdrantIndex, qdrant_peer: QdrantPeer) -> None:
    space = a_space()
    await index.upsert(space, the_corpus())
    qdrant_peer.app.state.client.delete_collection(_collection(space))
    assert await find(index, space, "pump") == []
    await index.upsert(space, the_corpus()[:2])
    assert await index.count(space) == 2


async def test_every_request_names_its_tenant(index: QdrantIndex, qdrant_peer: QdrantPeer) -> None:
    """The collection itself holds both tenants' points; only the filter keeps them apart."""
    mine, others = a_space("one-model"), a_space("one-model")
    await index.upsert(mine, [a_point("pump")])
    await index.upsert(others, [a_point("pump", 1)])
    assert qdrant_peer.app.state.client.count(_collection(mine)).count >= 2
    assert await index.count(mine) == 1
    await index.drop(mine)
    await index.drop(others)


class TestLayout:
    """What a collection is made of, as the peer was asked for it."""

    async def made(self, peer: QdrantPeer, **settings: Any) -> models.CreateCollection:
        index, space = a_qdrant_index(peer.url, **settings), a_space()
        await index.upsert(space, [a_point("pump")])
        await index.close()
        made: models.CreateCollection = peer.app.state.made[_collection(space)]
        assert peer.app.state.indexes[_collection(space)] == {"kb": "keyword", "document": "keyword", "revision": "integer"}
        return made

    async def test_tenants_have_graphs_of_their_own_and_vectors_lie_in_files(self, index: QdrantIndex, qdrant_peer: QdrantPeer) -> None:
        made = await self.made(qdrant_peer)
        assert made.hnsw_config is not None
        assert (made.hnsw_config.m, made.hnsw_config.payload_m) == (0, 16)
        assert made.vectors["dense"].on_disk  # type: ignore[index]
        assert isinstance(made.quantization_config, models.ScalarQuantization)
        assert made.quantization_config.scalar.type == "int8"
        assert (made.replication_factor, made.write_consistency_factor) == (None, None)

    async def test_on_a_cluster_a_majority_acknowledges(self, index: QdrantIndex, qdrant_peer: QdrantPeer) -> None:
        made = await self.made(qdrant_peer, replicas=3, quantization="none", on_disk=False)
        assert (made.replication_factor, made.write_consistency_factor) == (3, 2)
        assert made.quantization_config is None


class TestFieldIndexes:
    async def filtered(self, index: QdrantIndex, space: SpaceKey, **must: object) -> int:
        where = VectorFilter({f"metadata.{name}": value for name, value in must.items()})  # type: ignore[misc]
        return len(await find(index, space, "pump", where=where))

    @pytest.fixture
    async def space(self, index: QdrantIndex) -> SpaceKey:
        space = a_space()
        await index.upsert(space, [a_point("pump", fields={f"metadata.{name}": name for name in "abc"} | {"metadata.n": 5})])
        return space

    async def test_a_field_is_indexed_when_a_filter_first_finds_something_by_it(
        self, index: QdrantIndex, qdrant_peer: QdrantPeer, space: SpaceKey
    ) -> None:
        assert await self.filtered(index, space, a="a", n=5) == 1
        assert await self.filtered(index, space, nobody_has_it="x") == 0
        indexes = qdrant_peer.app.state.indexes[_collection(space)]
        assert {key: kind for key, kind in indexes.items() if key.startswith("f-")} == {
            "f-metadata_2e_a": "keyword",
            "f-metadata_2e_n": "float",
        }

    async def test_their_number_is_bounded_over_all_processes(self, index: QdrantIndex, qdrant_peer: QdrantPeer, space: SpaceKey) -> None:
        assert await self.filtered(index, space, a="a") == 1
        other = a_qdrant_index(qdrant_peer.url, max_field_indexes=2)
        assert [await self.filtered(other, space, **{name: name}) for name in "bca"] == [1, 1, 1]
        await other.close()
        assert sorted(key for key in qdrant_peer.app.state.indexes[_collection(space)] if key.startswith("f-")) == [
            "f-metadata_2e_a",
            "f-metadata_2e_b",
        ]

    async def test_a_server_that_demands_indexes_gets_them_as_far_as_there_is_room(
        self, index: QdrantIndex, qdrant_peer: QdrantPeer, space: SpaceKey
    ) -> None:
        qdrant_peer.app.state.strict = True
        try:
            assert await self.filtered(index, space, a="a") == 1
            full = a_qdrant_index(qdrant_peer.url, max_field_indexes=1)
            with pytest.raises(DependencyRejected):
                await self.filtered(full, space, b="b")
            await full.close()
        finally:
            qdrant_peer.app.state.strict = False

    async def test_an_index_that_cannot_be_made_does_not_cost_the_answer(
        self, index: QdrantIndex, qdrant_peer: QdrantPeer, space: SpaceKey
    ) -> None:
        qdrant_peer.app.state.fail_indexes = True
        try:
            assert await self.filtered(index, space, a="a") == 1
        finally:
            qdrant_peer.app.state.fail_indexes = False


class TestPeer:
    """The stand-in refuses what a server refuses, in its words."""

    async def post(self, peer: QdrantPeer, path: str, body: object) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.post(f"{peer.url}{path}", json=body)

    async def test_text_queries_do_not_exist(self, index: QdrantIndex, qdrant_peer: QdrantPeer) -> None:
        space = a_space()
        await index.upsert(space, the_corpus())
        text = {"text": {"query": "pump"}}
        path = f"/collections/{_collection(space)}/points/query"
        for body in ({"query": text, "using": "text"}, {"prefetch": [{"query": text}], "query": {"rrf": {"k": 60}}}):
            answer = await self.post(qdrant_peer, path, body)
            assert answer.status_code == 400
            assert "Expected some form of vector, id, or a type of query" in answer.json()["status"]["error"]

    async def test_unknown_collections_and_wrong_vectors_are_refused(self, index: QdrantIndex, qdrant_peer: QdrantPeer) -> None:
        answer = await self.post(qdrant_peer, "/collections/none/points/count", {})
        assert (answer.status_code, answer.json()["status"]["error"]) == (404, "Not found: Collection `none` doesn't exist!")
        space = a_space()
        await index.upsert(space, the_corpus())
        wrong = {"query": dense("x").tolist()[: DIM - 1], "using": "dense"}
        assert (await self.post(qdrant_peer, f"/collections/{_collection(space)}/points/query", wrong)).status_code == 400

    def test_it_runs_as_a_program(self) -> None:
        help_ = subprocess.run(
            [sys.executable, "-m", "tests.peers.qdrant", "--help"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
            timeout=30,
        )
        assert b"--port" in help_.stdout
