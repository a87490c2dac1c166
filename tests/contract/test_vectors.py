"""One contract for every vector index: Qdrant Edge, the peer of a Qdrant server, and a real server where one is named."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from shield.knowledge.bm25 import document_vector, query_vector
from shield.knowledge.model import point_id
from shield.knowledge.vectors.port import Point, Range, ScoredPoint, SpaceKey, SparseVector, Vector, VectorFilter, VectorIndex
from tests.contract.conftest import ADAPTERS

DIM = 32
KB = UUID("11111111-1111-4111-8111-111111111111")
DOCUMENT = UUID("22222222-2222-4222-8222-222222222222")
NOTHING = SparseVector((), ())

CORPUS = (
    "The E4711 fault stops the pump.",
    "An error of the pump is shown on the panel.",
    "Pumps and valves need oil once a month.",
    "The valve closes when pressure falls.",
    "Pressure is measured in bar.",
    "The panel shows pressure and faults; pump faults are red.",
    "Oil the bearings of the pump.",
    "A fault is an error that stays.",
)


def a_space(model: str | None = None) -> SpaceKey:
    """A new knowledge base; its model is its own too, unless a test wants neighbours in one collection."""
    return SpaceKey(uuid4(), model or f"test-{uuid4().hex[:8]}", DIM)


def dense(text: str) -> Vector:
    """A stand-in for a meaning: the sum of fixed directions of the words, of length 1."""
    total = np.zeros(DIM, dtype=np.float32)
    for word in text.lower().split():
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
        total += np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    unit: Vector = (total / np.linalg.norm(total)).astype(np.float32)
    return unit


def a_point(text: str, ordinal: int = 0, *, document: UUID = DOCUMENT, revision: int = 1, fields: Mapping[str, Any] | None = None) -> Point:
    key = point_id(KB, document, revision, ordinal)
    return Point(key, document, revision, ordinal, dense(text), document_vector(text), fields or {})


def the_corpus() -> list[Point]:
    return [a_point(text, number) for number, text in enumerate(CORPUS)]


async def find(vectors: VectorIndex, space: SpaceKey, text: str, limit: int = 10, where: VectorFilter | None = None) -> list[ScoredPoint]:
    return await vectors.search_hybrid(space, dense(text), query_vector(text), limit=limit, prefetch=30, rrf_k=60, where=where)


async def listed(vectors: VectorIndex, space: SpaceKey, document: UUID | None = None) -> list[tuple[UUID, Mapping[str, object]]]:
    return [item async for item in vectors.scan(space, document_id=document)]


def ordinals(points: Sequence[ScoredPoint]) -> list[int]:
    return [point.ordinal for point in points]


class TestWriting:
    async def test_what_was_written_is_found_counted_and_listed(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, the_corpus())
        assert await vectors.count(space) == len(CORPUS)
        (best, *_) = await find(vectors, space, CORPUS[3])
        assert (best.id, best.document_id, best.revision, best.ordinal) == (point_id(KB, DOCUMENT, 1, 3), DOCUMENT, 1, 3)

    async def test_the_same_point_written_again_is_replaced(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, [a_point("old words", fields={"kind": "web", "gone": "x"})])
        await vectors.upsert(space, [a_point("new terms", fields={"kind": "note"})])
        assert await vectors.count(space) == 1
        (_, payload), *_ = await listed(vectors, space)
        assert payload["kind"] == "note"
        assert "gone" not in payload
        old = await vectors.search_hybrid(space, dense("x"), query_vector("old"), limit=5, prefetch=5, rrf_k=60)
        assert ordinals(old) == [0]
        assert old[0].score == pytest.approx(1 / 61)  # by the dense search only: the old words are gone

    async def test_nothing_written_is_no_error(self, vectors: VectorIndex) -> None:
        await vectors.upsert(a_space(), [])

    async def test_more_points_than_a_part_holds_are_all_written(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, [a_point(f"word{i}", i) for i in range(600)])
        assert await vectors.count(space) == 600
        assert len({key for key, _ in await listed(vectors, space)}) == 600

    async def test_a_vector_of_another_length_is_refused(self, vectors: VectorIndex) -> None:
        space = a_space()
        point = Point(uuid4(), DOCUMENT, 1, 0, np.ones(DIM + 1, dtype=np.float32), NOTHING)
        with pytest.raises(ValueError, match=str(DIM)):
            await vectors.upsert(space, [point])

    async def test_many_writers_at_once_make_one_space(self, vectors: VectorIndex) -> None:
        space = a_space()
        await asyncio.gather(*(vectors.upsert(space, [a_point(f"word{i}", i)]) for i in range(12)))
        assert await vectors.count(space) == 12

    async def test_a_text_without_words_is_found_by_its_meaning(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, [Point(point_id(KB, DOCUMENT, 1, 0), DOCUMENT, 1, 0, dense("a"), NOTHING)])
        assert ordinals(await find(vectors, space, "a")) == [0]


class TestSearch:
    async def test_the_dense_score_is_the_cosine_best_first(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, the_corpus())
        query = dense("pump fault panel")
        hits = await vectors.search_dense(space, query, limit=4)
        expected = sorted((float(dense(text) @ query), number) for number, text in enumerate(CORPUS))[::-1][:4]
        assert ordinals(hits) == [number for _, number in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for score, _ in expected], abs=1e-5)
        assert [hit.similarity for hit in hits] == [hit.score for hit in hits]

    async def test_a_rare_word_beats_a_similar_meaning(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, the_corpus())
        similar = dense(CORPUS[1])
        (best, *_) = await vectors.search_hybrid(space, similar, query_vector("E4711"), limit=1, prefetch=2, rrf_k=60)
        assert best.ordinal in (0, 1)
        hits = await vectors.search_hybrid(space, dense("E4711 fault"), query_vector("E4711 fault"), limit=1, prefetch=30, rrf_k=60)
        assert ordinals(hits) == [0]

    async def test_fused_scores_are_reciprocal_ranks_with_the_k_given(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, the_corpus())
        query = dense("E4711")
        hits = await vectors.search_hybrid(space, query, query_vector("E4711"), limit=10, prefetch=30, rrf_k=10)
        ranks = {hit.id: rank for rank, hit in enumerate(await vectors.search_dense(space, query, limit=30), start=1)}
        for hit in hits:
            keyword = 1 / 11 if hit.ordinal == 0 else 0
            assert hit.score == pytest.approx(1 / (10 + ranks[hit.id]) + keyword)
            assert hit.similarity is not None

    async def test_equal_scores_are_ordered_by_point_id(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, [a_point("the same text", number) for number in range(9)])
        for hits in (await find(vectors, space, "same text"), await vectors.search_dense(space, dense("same text"), limit=9)):
            assert [hit.id for hit in hits] == sorted(hit.id for hit in hits)

    async def test_the_limit_holds_and_none_is_asked_for_none(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, the_corpus())
        assert len(await find(vectors, space, "pump", limit=3)) == 3
        assert await find(vectors, space, "pump", limit=0) == []
        assert await vectors.search_dense(space, dense("pump"), limit=0) == []

    async def test_a_question_without_words_is_answered_by_meaning(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, the_corpus())
        hits = await vectors.search_hybrid(space, dense(CORPUS[4]), NOTHING, limit=1, prefetch=30, rrf_k=60)
        assert ordinals(hits) == [4]


FIELDS: list[Mapping[str, Any]] = [
    {"kind": "web", "size": 5, "score": 1.5, "draft": True, "metadata.tags": ["red", "hot"], "metadata.ö [x].y": "a"},
    {"kind": "web", "size": 7, "score": 2.5, "draft": False, "metadata.tags": ["blue"]},
    {"kind": "note", "size": 5.0, "score": -1, "metadata.tags": "red", "draft": "true"},
    {"kind": "file", "size": 9, "score": float("nan"), "metadata.tags": [], "metadata.ö [x].y": "b"},
]


class TestFilters:
    @pytest.mark.parametrize(
        ("must", "found"),
        [
            ({}, [0, 1, 2, 3]),
            ({"kind": "web"}, [0, 1]),
            ({"kind": ("web", "file")}, [0, 1, 3]),
            ({"kind": ()}, []),
            ({"kind": "nothing"}, []),
            ({"size": 5}, [0, 2]),
            ({"size": 5.0}, [0, 2]),
            ({"size": (5, 9)}, [0, 2, 3]),
            ({"score": 2.5}, [1]),
            ({"score": (1.5, "x")}, [0]),
            ({"score": Range(gte=1.5)}, [0, 1]),
            ({"score": Range(gt=1.5)}, [1]),
            ({"size": Range(gte=5, lt=9)}, [0, 1, 2]),
            ({"size": Range(gt=5, lte=9)}, [1, 3]),
            ({"draft": True}, [0]),
            ({"draft": False}, [1]),
            ({"draft": (True, False)}, [0, 1]),
            ({"draft": "true"}, [2]),
            ({"metadata.tags": "red"}, [0, 2]),
            ({"metadata.tags": ("blue", "hot")}, [0, 1]),
            ({"metadata.ö [x].y": "a"}, [0]),
            ({"kind": "web", "size": 7}, [1]),
            ({"kind": "note", "size": 7}, []),
            ({"unknown": "x"}, []),
            ({"document": str(DOCUMENT)}, [0, 1, 2, 3]),
            ({"document": str(KB)}, []),
            ({"kb": "x"}, []),
        ],
    )
    async def test_only_points_that_match_are_found(self, vectors: VectorIndex, must: Mapping[str, Any], found: list[int]) -> None:
        space = a_space()
        await vectors.upsert(space, [a_point("pump", number, fields=fields) for number, fields in enumerate(FIELDS)])
        where = VectorFilter(must)
        assert sorted(ordinals(await find(vectors, space, "pump", where=where))) == found
        assert sorted(ordinals(await vectors.search_dense(space, dense("pump"), limit=9, where=where))) == found

    async def test_a_filter_applies_before_the_limit(self, vectors: VectorIndex) -> None:
        space = a_space()
        many = [a_point("pump", number, fields={"kind": "web"}) for number in range(40)]
        await vectors.upsert(space, [*many, a_point("something else", 99, fields={"kind": "note"})])
        assert ordinals(await find(vectors, space, "pump", limit=1, where=VectorFilter({"kind": "note"}))) == [99]

    async def test_fields_come_back_as_they_were_given(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, [a_point("pump", fields=FIELDS[0])])
        (_, payload), *_ = await listed(vectors, space)
        assert payload == {"kb": str(space.knowledge_base_id), "document": str(DOCUMENT), "revision": 1, "ordinal": 0, **FIELDS[0]}


class TestSpaces:
    @pytest.fixture
    async def neighbours(self, vectors: VectorIndex) -> tuple[SpaceKey, SpaceKey]:
        """Two knowledge bases of one model, which share a collection on a server."""
        model = f"shared-{uuid4().hex[:8]}"
        mine, others = a_space(model), a_space(model)
        await vectors.upsert(mine, [a_point("my pump", 1)])
        await vectors.upsert(others, [a_point("secret pump", 2)])
        return mine, others

    async def test_a_point_of_another_knowledge_base_is_never_seen(
        self, vectors: VectorIndex, neighbours: tuple[SpaceKey, SpaceKey]
    ) -> None:
        mine, _ = neighbours
        assert ordinals(await find(vectors, mine, "secret pump")) == [1]
        assert ordinals(await vectors.search_dense(mine, dense("secret pump"), limit=9)) == [1]
        assert [payload["ordinal"] for _, payload in await listed(vectors, mine)] == [1]
        assert await vectors.count(mine) == 1
        spying = VectorFilter({"kb": str(neighbours[1].knowledge_base_id)})
        assert await find(vectors, mine, "secret pump", where=spying) == []

    async def test_deleting_and_dropping_touch_one_knowledge_base_only(
        self, vectors: VectorIndex, neighbours: tuple[SpaceKey, SpaceKey]
    ) -> None:
        mine, others = neighbours
        await vectors.delete_document(mine, DOCUMENT)
        await vectors.drop(mine)
        assert (await vectors.count(mine), await vectors.count(others)) == (0, 1)

    async def test_an_unknown_space_is_empty(self, vectors: VectorIndex) -> None:
        space = a_space()
        assert await find(vectors, space, "pump") == []
        assert await vectors.search_dense(space, dense("pump"), limit=3) == []
        assert await listed(vectors, space) == []
        assert await vectors.count(space) == 0
        await vectors.delete_document(space, DOCUMENT)
        await vectors.delete_revision(space, DOCUMENT, 1)
        await vectors.drop(space)

    async def test_a_dropped_space_is_empty_and_can_be_made_again(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, the_corpus())
        await vectors.drop(space)
        assert await vectors.count(space) == 0
        await vectors.upsert(space, the_corpus()[:2])
        assert await vectors.count(space) == 2

    async def test_models_and_dimensions_are_kept_apart(self, vectors: VectorIndex) -> None:
        kb = uuid4()
        spaces = [SpaceKey(kb, "org/model", DIM), SpaceKey(kb, "org-model", DIM), SpaceKey(kb, "org/model", 8)]
        await vectors.upsert(spaces[0], [a_point("pump")])
        assert [await vectors.count(space) for space in spaces] == [1, 0, 0]
        await vectors.drop(spaces[0])

    async def test_the_index_answers_a_ping(self, vectors: VectorIndex) -> None:
        await vectors.ping()


class TestDeleting:
    async def test_points_go_by_id_and_unknown_ones_are_no_error(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.delete_points(space, [uuid4()])
        await vectors.upsert(space, the_corpus())
        await vectors.delete_points(space, [point_id(KB, DOCUMENT, 1, 2), uuid4()])
        await vectors.delete_points(space, [])
        assert sorted(payload["ordinal"] for _, payload in await listed(vectors, space)) == [0, 1, 3, 4, 5, 6, 7]  # type: ignore[type-var]

    async def test_a_revision_goes_and_the_others_stay(self, vectors: VectorIndex) -> None:
        space, other = a_space(), uuid4()
        await vectors.upsert(space, [a_point("pump", 0, revision=number) for number in (1, 2, 3)])
        await vectors.upsert(space, [a_point("pump", 0, document=other, revision=2)])
        await vectors.delete_revision(space, DOCUMENT, 2)
        assert {(p["document"], p["revision"]) for _, p in await listed(vectors, space)} == {
            (str(DOCUMENT), 1),
            (str(DOCUMENT), 3),
            (str(other), 2),
        }

    async def test_all_but_one_revision_of_a_document_go(self, vectors: VectorIndex) -> None:
        space, other = a_space(), uuid4()
        await vectors.upsert(space, [a_point("pump", n, revision=revision) for revision in (1, 2, 3) for n in (0, 1)])
        await vectors.upsert(space, [a_point("pump", 0, document=other)])
        await vectors.delete_document(space, DOCUMENT, keep_revision=3)
        assert {p["revision"] for _, p in await listed(vectors, space, DOCUMENT)} == {3}
        assert await vectors.count(space) == 3

    async def test_a_deleted_document_is_not_found_and_deleting_again_is_fine(self, vectors: VectorIndex) -> None:
        space, other = a_space(), uuid4()
        await vectors.upsert(space, [a_point("pump"), a_point("pump", document=other)])
        for _ in range(2):
            await vectors.delete_document(space, DOCUMENT)
        assert [hit.document_id for hit in await find(vectors, space, "pump")] == [other]
        assert await listed(vectors, space, DOCUMENT) == []


class TestScan:
    async def test_points_come_in_order_of_id_each_once(self, vectors: VectorIndex) -> None:
        space = a_space()
        await vectors.upsert(space, [a_point(f"word{i}", i, document=uuid4()) for i in range(520)])
        keys = [key for key, _ in await listed(vectors, space)]
        assert len(keys) == 520
        assert keys == sorted(keys)

    async def test_one_documents_points(self, vectors: VectorIndex) -> None:
        space, other = a_space(), uuid4()
        await vectors.upsert(space, [*the_corpus(), a_point("pump", document=other)])
        assert [payload["document"] for _, payload in await listed(vectors, space, other)] == [str(other)]


@pytest.mark.parametrize("query", ["E4711", "pump fault", "what is shown on the panel when pressure falls?", "oil"])
async def test_order_and_scores_are_the_same_on_every_adapter(
    edge_vectors: VectorIndex, qdrant_peer_vectors: VectorIndex, query: str, request: pytest.FixtureRequest
) -> None:
    indexes = [edge_vectors, qdrant_peer_vectors]
    if "qdrant_server" in ADAPTERS:
        indexes.append(request.getfixturevalue("qdrant_server_vectors"))
    results = []
    for index in indexes:
        space = a_space()
        await index.upsert(space, the_corpus())
        results.append(await find(index, space, query))
    for other in results[1:]:
        assert [(hit.id, hit.score) for hit in other] == [(hit.id, hit.score) for hit in results[0]]
        assert [hit.similarity for hit in other] == pytest.approx([hit.similarity for hit in results[0]], abs=1e-5)
