"""Vectors for the graph processes, made by this process's embedder and each text once as far as that is cheap.

A chunk's vector was made when the document was indexed, so chunks go through the stored cache. Names and descriptions of
entities and relations do not: their vectors would outlive them there. They have a small memory instead, which is where a
frequent entity, written again with each document, is found.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shield.knowledge.graph.wire import pack

_REMEMBERED = 4096


class TextEmbedder(Protocol):
    """What the writer needs of an embedder; `CachedEmbedder` has it."""

    @property
    def model(self) -> str:
        """Name."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors that are kept."""

    async def embed_once(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors that are not kept."""


class GraphVectors:
    """Answers the request `embed` of a graph process."""

    def __init__(self, embedder: TextEmbedder) -> None:
        self._embedder = embedder
        self._chunks: frozenset[str] = frozenset()
        self._memory: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()

    def expect(self, chunks: Sequence[str]) -> None:
        """The chunks that are being inserted."""
        self._chunks = frozenset(chunks)

    async def embed(self, texts: list[str], query: bool = False) -> str:
        """Vectors of `texts`, packed."""
        found: dict[str, npt.NDArray[np.float32]] = {text: self._memory[text] for text in texts if text in self._memory}
        chunks = list(dict.fromkeys(text for text in texts if text in self._chunks and text not in found))
        others = list(dict.fromkeys(text for text in texts if text not in found and text not in self._chunks))
        if chunks:
            found |= zip(chunks, await self._embedder.embed(chunks), strict=True)
        if others:
            made = dict(zip(others, await self._embedder.embed_once(others), strict=True))
            found |= made
            if not query:
                self._remember(made)
        return pack(np.stack([found[text] for text in texts]) if texts else np.zeros((0, self._embedder.dim), np.float32))

    def _remember(self, made: dict[str, npt.NDArray[np.float32]]) -> None:
        self._memory.update(made)
        while len(self._memory) > _REMEMBERED:
            self._memory.popitem(last=False)
