"""An embedding endpoint for tests: speaks OpenAI's `/v1/embeddings`, answers by rule, and misbehaves on demand.

A text's vector is the sum of fixed directions of its words, different for each model and as long as the model's name says (`old-32`);
so texts that share words are near each other, and every run gives the same vectors.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from aiohttp import web

from tests.peers.serving import serving


@dataclass
class EmbeddingPeer:
    """What it was asked, and what it shall do."""

    url: str = ""
    texts: Counter[str] = field(default_factory=Counter)
    """How often each text was embedded, by `model:text`."""
    down: set[str] = field(default_factory=set)
    """Models that answer 503."""
    refused: str | None = None
    """Texts with this in them are answered 400."""
    blunt: set[str] = field(default_factory=set)
    """Models for which all texts are the same."""

    async def openai(self, request: web.Request) -> web.Response:
        body = await request.json()
        model, texts = body["model"], body["input"]
        if model in self.down:
            return web.Response(status=503)
        if self.refused is not None and any(self.refused in text for text in texts):
            return web.Response(status=400)
        self.texts.update(f"{model}:{text}" for text in texts)
        vectors = [vector(model, "same" if model in self.blunt else text) for text in texts]
        data = [{"index": n, "embedding": base64.b64encode(v.astype("<f4").tobytes()).decode()} for n, v in enumerate(vectors)]
        return web.json_response({"data": data})


def vector(model: str, text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The vector of a text, not of length 1."""
    dim = int(model.rpartition("-")[2])
    total = np.full(dim, 1e-3, dtype=np.float32)
    for word in re.findall(r"\w+", text.lower()):
        seed = int.from_bytes(hashlib.sha256(f"{model} {word}".encode()).digest()[:4], "big")
        total += np.random.default_rng(seed).normal(size=dim).astype(np.float32)
    return total


@asynccontextmanager
async def embedding_peer() -> AsyncIterator[EmbeddingPeer]:
    """A running peer on a free loopback port."""
    peer = EmbeddingPeer()
    app = web.Application()
    app.router.add_post("/v1/embeddings", peer.openai)
    async with serving(app) as peer.url:
        yield peer
