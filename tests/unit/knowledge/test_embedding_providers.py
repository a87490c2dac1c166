"""Embedders behind HTTP, against local endpoints that answer well, badly, late or not at all."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from shield.errors import (
    CircuitOpen,
    DependencyMisconfigured,
    DependencyRejected,
    DependencyThrottled,
    DependencyUnavailable,
    ShieldError,
)
from shield.knowledge.embedding import create_embedder
from shield.knowledge.embedding.port import Embedder
from shield.resilience import Breakers
from shield.settings import BreakerSettings, EmbeddingSettings

Answer = Callable[[Any], Awaitable[web.StreamResponse]]
DIM = 8


def numbers(text: str) -> list[float]:
    """A stand-in vector, not of length 1: providers need not normalise."""
    return [float(len(text) + 1), *([2.0] * (DIM - 1))]


def unit(text: str) -> list[float]:
    vector = np.array(numbers(text))
    return list(vector / np.linalg.norm(vector))


@asynccontextmanager
async def an_endpoint(path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post(path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield site.name
    finally:
        await runner.cleanup()


@asynccontextmanager
async def an_embedder(provider: str, base_url: str, **more: Any) -> AsyncIterator[Embedder]:
    settings = EmbeddingSettings.model_validate({"provider": provider, "model": "m", "dim": DIM, "base_url": base_url, "batch": 3} | more)
    embedder = create_embedder(settings, Breakers(BreakerSettings()))
    yield embedder
    await embedder.close()


def openai_answer(texts: list[str], *, encoded: bool) -> dict[str, Any]:
    def vector(text: str) -> Any:
        return base64.b64encode(np.array(numbers(text), dtype="<f4").tobytes()).decode() if encoded else numbers(text)

    return {"data": [{"index": i, "embedding": vector(text)} for i, text in reversed(list(enumerate(texts)))]}


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_an_openai_endpoint_embeds_in_batches_and_order(encoded: bool, suffix: str) -> None:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        seen.append((request.headers["authorization"], body["model"], len(body["input"])))
        return web.json_response(openai_answer(body["input"], encoded=encoded))

    texts = ["a", "bb", "ccc", "dddd"]
    async with an_endpoint("/v1/embeddings", answer) as url, an_embedder("openai", url + suffix, api_key="k") as embedder:
        vectors = await embedder.embed(texts)
        assert (await embedder.embed([])).shape == (0, DIM)
    assert vectors == pytest.approx(np.array([unit(text) for text in texts]), abs=1e-6)
    assert seen == [("Bearer k", "m", 3), ("Bearer k", "m", 1)]


async def test_ollama_embeds_without_a_key() -> None:
    async def answer(request: web.Request) -> web.Response:
        assert "authorization" not in request.headers
        return web.json_response({"embeddings": [numbers(text) for text in (await request.json())["input"]]})

    async with an_endpoint("/api/embed", answer) as url, an_embedder("ollama", url) as embedder:
        assert (await embedder.embed(["a"]))[0] == pytest.approx(unit("a"), abs=1e-6)
        assert (embedder.model, embedder.dim) == ("m", DIM)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, DependencyRejected),
        (413, DependencyRejected),
        (401, DependencyMisconfigured),
        (404, DependencyMisconfigured),
        (429, DependencyThrottled),
        (302, DependencyUnavailable),
        (500, DependencyUnavailable),
    ],
)
async def test_an_error_status_becomes_a_typed_error_without_the_body(status: int, error: type[ShieldError]) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text="our secret text", headers={"retry-after": "7", "location": "http://127.0.0.1:9/"})

    async with an_endpoint("/v1/embeddings", answer) as url, an_embedder("openai", url) as embedder:
        with pytest.raises(error) as raised:
            await embedder.embed(["a"])
    assert "secret" not in str(raised.value)
    if status == 429:
        assert raised.value.retry_after == 7


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"data": [{"index": 0, "embedding": [1.0] * (DIM + 1)}]}, DependencyMisconfigured),
        ({"data": []}, DependencyUnavailable),
        ({"data": [{"index": 0, "embedding": [0.0] * DIM}]}, DependencyUnavailable),
        ({"data": [{"index": 0, "embedding": [float("nan")] * DIM}]}, DependencyUnavailable),
        ({"data": [{"index": 0, "embedding": "not base64!"}]}, DependencyUnavailable),
        ({"data": [{"index": 0, "embedding": "AAA="}]}, DependencyUnavailable),
        ({"data": [{"index": 0, "embedding": [[1.0], "x"]}]}, DependencyUnavailable),
        ({"data": "x"}, DependencyUnavailable),
        ([], DependencyUnavailable),
        (None, DependencyUnavailable),
    ],
)
async def test_an_answer_of_a_wrong_form_is_a_typed_error(body: Any, error: type[ShieldError]) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(body)

    async with an_endpoint("/v1/embeddings", answer) as url, an_embedder("openai", url) as embedder:
        with pytest.raises(error):
            await embedder.embed(["a"])


async def test_no_json_a_late_answer_and_no_endpoint_are_unavailable_and_open_the_circuit() -> None:
    async def html(_request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    async def late(_request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    over = asyncio.Event()

    async with an_endpoint("/v1/embeddings", html) as url, an_embedder("openai", url) as embedder:
        with pytest.raises(DependencyUnavailable):
            await embedder.embed(["a"])
    async with an_endpoint("/v1/embeddings", late) as url, an_embedder("openai", url, timeout=0.1) as embedder:
        with pytest.raises(DependencyUnavailable):
            await embedder.embed(["a"])
        over.set()
    async with an_embedder("openai", "http://127.0.0.1:9") as embedder:
        for _ in range(5):
            with pytest.raises(DependencyUnavailable):
                await embedder.embed(["a"])
        with pytest.raises(CircuitOpen):
            await embedder.embed(["a"])


@pytest.mark.parametrize(
    ("text", "least", "most"), [("", 0, 0), ("pump", 1, 1), ("internationalisation", 2, 5), ("a, b!", 4, 4), ("字" * 8, 2, 12)]
)
async def test_tokens_are_estimated(text: str, least: int, most: int) -> None:
    async with an_embedder("openai", "http://127.0.0.1:9") as embedder:
        assert least <= embedder.count_tokens(text) <= most
