"""Each text is embedded once: vectors are kept in PostgreSQL by (model and dimension, SHA-256 of the text).

When two tasks ask for the same text at once, one embeds and the other waits for it; if the first fails or is cancelled, the
other does it itself. What is new is embedded and stored slice by slice, so a crash repeats one slice at most. Two processes may
still embed the same text at the same moment, which costs time but no correctness. Questions are not stored in the database,
only in a small memory of this process.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.errors import DependencyMisconfigured
from shield.knowledge.embedding.port import Embedder

Floats = npt.NDArray[np.float32]

SLICE = 128
"""Texts embedded and stored at a time."""
LOOKUP = 1000
"""Hashes a statement."""
QUERIES = 256
"""Questions remembered."""

_READ = sql("SELECT text_hash, vector FROM embeddings WHERE model = :model AND text_hash = ANY(:hashes)")
_WRITE = sql(
    "INSERT INTO embeddings (model, text_hash, vector) SELECT :model, h, v FROM unnest(CAST(:hashes AS text[]), CAST(:vectors AS bytea[])) AS new(h, v) "
    "ORDER BY h ON CONFLICT DO NOTHING"  # one order for everybody: no deadlocks
)
_FORGET = sql(
    "DELETE FROM embeddings e WHERE e.text_hash = ANY(:hashes) AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.embed_hash = e.text_hash)"
)


class CachedEmbedder:
    """An embedder that remembers; itself an `Embedder`."""

    def __init__(self, embedder: Embedder, engine: AsyncEngine) -> None:
        self._embedder = embedder
        self._engine = engine
        self._key = f"{embedder.model}:{embedder.dim}"
        self._running: dict[str, asyncio.Future[Floats]] = {}
        self._queries: OrderedDict[str, Floats] = OrderedDict()

    @property
    def model(self) -> str:
        """The model's name."""
        return self._embedder.model

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._embedder.dim

    def count_tokens(self, text: str) -> int:
        """Wordpieces of a text."""
        return self._embedder.count_tokens(text)

    def of(self, model: str, dim: int) -> CachedEmbedder:
        """The embedder of that model, which is this one or, in a set of them, another.

        Raises:
            DependencyMisconfigured: there is none here; vectors of two models must not meet.
        """
        if (model, dim) != (self.model, self.dim):
            raise DependencyMisconfigured(f"No embedder is configured for the model {model} with {dim} dimensions.", service="embedding")
        return self

    async def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of the texts, in their order, each new one stored before this returns.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
            ShieldError: what the embedder raises; slices that were finished stay stored.
        """
        hashes = [_hash(text) for text in texts]
        wanted = dict(zip(hashes, texts, strict=True))
        found: dict[str, Floats] = {}
        while missing := [key for key in wanted if key not in found]:
            others = {key: self._running[key] for key in missing if key in self._running}
            mine = {key: wanted[key] for key in missing if key not in others}
            found |= await self._work(mine)
            if others:
                await asyncio.wait(others.values())
                found |= {key: future.result() for key, future in others.items() if not future.cancelled()}
        return np.stack([found[key] for key in hashes]) if hashes else np.empty((0, self.dim), dtype=np.float32)

    async def embed_query(self, text: str) -> Floats:
        """The unit vector of a question, shape (dim,); never stored in the database."""
        key = _hash(text)
        vector = self._queries.get(key)
        if vector is None:
            vector = (await self._embedder.embed([text]))[0]
        self._queries[key] = vector
        self._queries.move_to_end(key)
        while len(self._queries) > QUERIES:
            self._queries.popitem(last=False)
        return vector

    async def embed_once(self, texts: Sequence[str]) -> Floats:
        """Unit vectors that nobody will ask for again: neither looked up nor stored."""
        return await self._embedder.embed(texts)

    async def forget(self, hashes: Iterable[str]) -> int:
        """Remove the vectors of these text hashes that no chunk uses any more, of every model; returns how many."""
        removed = 0
        for part in _parts(hashes, LOOKUP):
            with database_errors():
                async with self._engine.begin() as connection:
                    removed += (await connection.execute(_FORGET, {"hashes": part})).rowcount
            self.forget_questions(part)
        return removed

    def forget_questions(self, hashes: Iterable[str]) -> None:
        """Forget questions by the hash of their text."""
        for key in hashes:
            self._queries.pop(key, None)

    async def close(self) -> None:
        """Let go of the embedder; the engine is the caller's."""
        self._queries.clear()
        await self._embedder.close()

    async def _work(self, texts: dict[str, str]) -> dict[str, Floats]:
        """Read or make these vectors, while others who want them wait for the futures registered here."""
        if not texts:
            return {}
        loop = asyncio.get_running_loop()
        futures = {key: loop.create_future() for key in texts}
        self._running |= futures
        try:
            found = await self._stored(texts)
            self._tell(futures, found)
            new = sorted((key for key in texts if key not in found), key=lambda key: len(texts[key]))
            for part in _parts(new, SLICE):
                vectors = await self._embedder.embed([texts[key] for key in part])
                made = dict(zip(part, vectors, strict=True))
                await self._store(made)
                self._tell(futures, made)
                found |= made
            return found
        finally:
            for key, future in futures.items():
                future.cancel()  # of those not told: whoever waits does it himself
                del self._running[key]

    def _tell(self, futures: dict[str, asyncio.Future[Floats]], vectors: dict[str, Floats]) -> None:
        for key, vector in vectors.items():
            futures[key].set_result(vector)

    async def _stored(self, hashes: Iterable[str]) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        for part in _parts(hashes, LOOKUP):
            with database_errors():
                async with self._engine.connect() as connection:
                    rows = await connection.execute(_READ, {"model": self._key, "hashes": part})
                    found |= {key: np.frombuffer(vector, dtype="<f4").astype(np.float32) for key, vector in rows}
        return found

    async def _store(self, vectors: dict[str, Floats]) -> None:
        values = {"model": self._key, "hashes": list(vectors), "vectors": [vector.astype("<f4").tobytes() for vector in vectors.values()]}
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(_WRITE, values)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _parts(items: Iterable[str], size: int) -> Iterable[list[str]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
