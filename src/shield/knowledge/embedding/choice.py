"""The embedding models of a process: the one for new knowledge bases, and the others that bases still need.

A base names its model; whoever embeds for it asks `of` for that model's embedder. So a base goes on answering while it is moved to
another model, and after the installation's own model has changed. Used without a name, this is the model for new bases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.embedding.port import Embedder


class Embedders(CachedEmbedder):
    """Several embedders, the first of which is for new bases; of two with one model and dimension the earlier is used."""

    def __init__(self, embedders: Sequence[Embedder], engine: AsyncEngine) -> None:
        super().__init__(embedders[0], engine)
        self._all = list(embedders)
        self._others: dict[tuple[str, int], CachedEmbedder] = {}
        for embedder in embedders[1:]:
            key = (embedder.model, embedder.dim)
            if key != (self.model, self.dim) and key not in self._others:
                self._others[key] = CachedEmbedder(embedder, engine)

    def of(self, model: str, dim: int) -> CachedEmbedder:
        """The embedder of that model; see `CachedEmbedder.of`."""
        return self._others.get((model, dim)) or super().of(model, dim)

    async def forget(self, hashes: Iterable[str]) -> int:
        """Remove the vectors of these text hashes that no chunk uses any more, of every model; returns how many."""
        gone = list(hashes)
        for other in self._others.values():
            other.forget_questions(gone)
        return await super().forget(gone)

    async def close(self) -> None:
        """Let go of all of them."""
        self._queries.clear()
        for embedder in self._all:
            await embedder.close()
