"""Each text is embedded once: across calls, tasks, processes' restarts and failures."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.tables import chunks
from shield.errors import DependencyUnavailable
from shield.knowledge.embedding.cache import QUERIES, SLICE, CachedEmbedder
from shield.knowledge.model import Chunk

DIM = 4


class Counting:
    """An embedder that counts what it embeds and can be held up or made to fail."""

    model = "counting"
    dim = DIM

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.batches: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.fails: Callable[[Sequence[str]], bool] = lambda _texts: False

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.entered.set()
        await self.gate.wait()
        if self.fails(texts):
            raise DependencyUnavailable
        self.seen.update(texts)
        self.batches.append(len(texts))
        return np.stack([vector(text) for text in texts])

    async def close(self) -> None:
        self.seen.clear()


def vector(text: str) -> npt.NDArray[np.float32]:
    raw = np.frombuffer(hashlib.sha256(text.encode()).digest()[: DIM * 2], dtype=np.uint16).astype(np.float32) + 1
    result: npt.NDArray[np.float32] = raw / np.linalg.norm(raw)
    return result


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def test_a_text_is_embedded_once_and_its_vector_survives(engine: AsyncEngine) -> None:
    inner = Counting()
    first = await CachedEmbedder(inner, engine).embed(["b", "a", "b", "c"])
    again = await CachedEmbedder(inner, engine).embed(["c", "b", "d"])
    assert inner.seen == Counter("abcd")
    assert np.array_equal(first, np.stack([vector(text) for text in "babc"]))
    assert np.array_equal(again, np.stack([vector(text) for text in "cbd"]))


async def test_no_texts_ask_nobody(engine: AsyncEngine) -> None:
    inner = Counting()
    assert (await CachedEmbedder(inner, engine).embed([])).shape == (0, DIM)
    assert not inner.batches


async def test_two_tasks_asking_at_once_share_the_work(engine: AsyncEngine) -> None:
    inner = Counting()
    cache = CachedEmbedder(inner, engine)
    results = await asyncio.gather(*(cache.embed([f"t{i % 5}", "same", f"u{i}"]) for i in range(10)))
    assert set(inner.seen.values()) == {1}
    assert len(inner.seen) == 16
    assert all(np.array_equal(result[1], vector("same")) for result in results)


async def test_who_waits_for_a_cancelled_task_embeds_himself(engine: AsyncEngine) -> None:
    inner = Counting()
    inner.gate.clear()
    cache = CachedEmbedder(inner, engine)
    first = asyncio.create_task(cache.embed(["a"]))
    await inner.entered.wait()
    second = asyncio.create_task(cache.embed(["a", "b"]))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    inner.gate.set()
    assert np.array_equal(await second, np.stack([vector("a"), vector("b")]))
    assert inner.seen == Counter("ab")


async def test_a_cancelled_waiter_disturbs_nobody(engine: AsyncEngine) -> None:
    inner = Counting()
    inner.gate.clear()
    cache = CachedEmbedder(inner, engine)
    first = asyncio.create_task(cache.embed(["a"]))
    await inner.entered.wait()
    second = asyncio.create_task(cache.embed(["a"]))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    inner.gate.set()
    assert np.array_equal(await first, [vector("a")])


async def test_what_was_finished_before_a_failure_is_not_done_again(engine: AsyncEngine) -> None:
    inner = Counting()
    cache = CachedEmbedder(inner, engine)
    texts = [f"text {i:04d}" for i in range(3 * SLICE)]
    inner.fails = lambda _texts: len(inner.batches) == 2
    with pytest.raises(DependencyUnavailable):
        await cache.embed(texts)
    inner.fails = lambda _texts: False
    await CachedEmbedder(inner, engine).embed(texts)
    assert set(inner.seen.values()) == {1}
    assert inner.batches == [SLICE] * 3


async def test_a_failure_reaches_every_waiter_and_leaves_nothing_behind(engine: AsyncEngine) -> None:
    inner = Counting()
    inner.fails = lambda _texts: True
    cache = CachedEmbedder(inner, engine)
    results = await asyncio.gather(*(cache.embed(["a"]) for _ in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [DependencyUnavailable] * 4
    inner.fails = lambda _texts: False
    assert np.array_equal(await cache.embed(["a"]), [vector("a")])
    assert not cache._running


async def test_another_model_or_dimension_has_its_own_vectors(engine: AsyncEngine) -> None:
    one, other = Counting(), Counting()
    other.model = "another"
    await CachedEmbedder(one, engine).embed(["a"])
    await CachedEmbedder(other, engine).embed(["a"])
    assert (one.seen, other.seen) == (Counter("a"), Counter("a"))


async def test_a_question_is_remembered_but_not_stored(engine: AsyncEngine) -> None:
    inner = Counting()
    cache = CachedEmbedder(inner, engine)
    for _ in range(3):
        assert np.array_equal(await cache.embed_query("why?"), vector("why?"))
    assert inner.seen == Counter(["why?"])
    async with engine.connect() as connection:
        assert (await connection.execute(sa.text("SELECT count(*) FROM embeddings"))).scalar_one() == 0
    for i in range(QUERIES):
        await cache.embed_query(f"q{i}")
    assert len(cache._queries) == QUERIES
    await cache.embed_query("why?")
    assert inner.seen["why?"] == 2


async def test_forgetting_spares_what_a_chunk_still_uses(engine: AsyncEngine) -> None:
    inner = Counting()
    cache = CachedEmbedder(inner, engine)
    used = Chunk(0, "used", 0, 4, 1)
    await cache.embed([used.embedded_text, "unused"])
    await cache.embed_query("unused")
    async with engine.begin() as connection:
        row = {"document_id": uuid4(), "revision": 1, "ordinal": 0, "text": "used", "start": 0, "end": 4, "tokens": 1}
        await connection.execute(sa.insert(chunks).values(**row, embed_hash=used.embed_hash))
    assert await cache.forget([used.embed_hash, key("unused"), key("unknown")]) == 1
    assert await cache.forget([]) == 0
    await cache.embed(["used", "unused"])
    assert inner.seen == Counter({"used": 1, "unused": 3})


async def test_many_processes_storing_in_both_directions_do_not_deadlock(engine: AsyncEngine) -> None:
    texts = [f"text {i}" for i in range(600)]
    caches = [CachedEmbedder(Counting(), engine) for _ in range(3)]
    results = await asyncio.gather(*(cache.embed(texts[:: (-1) ** n]) for n, cache in enumerate(caches)))
    assert all(np.array_equal(result[:: (-1) ** n], results[0]) for n, result in enumerate(results))
