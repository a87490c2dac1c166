"""Embedders behind HTTP, against local endpoints that answer well, badly, late or not at all."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
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


class Picky:
    """Refuses requests that are too big as a whole, texts that are too long, and one word always."""

    def __init__(self, whole: int = 10**6, alone: int = 10**6) -> None:
        self.whole, self.alone = whole, alone
        self.asked: list[list[str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        self.asked.append(texts)
        if sum(map(len, texts)) > self.whole or any(len(text) > self.alone or "poison" in text for text in texts):
            return web.json_response({"error": {"message": "too long", "code": "context_length_exceeded"}}, status=413)
        return web.json_response(openai_answer(texts, encoded=True))


@asynccontextmanager
async def a_picky_one(picky: Picky, **more: Any) -> AsyncIterator[Embedder]:
    async with an_endpoint("/v1/embeddings", picky.answer) as url, an_embedder("openai", url, **more) as embedder:
        yield embedder


async def test_a_batch_that_is_too_big_as_a_whole_passes_in_parts() -> None:
    texts = [f"{n:02d}" for n in range(16)]
    async with a_picky_one(Picky(whole=8), batch=16) as embedder:
        assert await embedder.embed(texts) == pytest.approx(np.array([unit(text) for text in texts]), abs=1e-6)


async def test_a_text_that_is_too_long_alone_gets_the_vector_of_its_beginning_and_its_neighbours_theirs() -> None:
    texts = ["a", "b" * 30, "c", "d"]
    async with a_picky_one(Picky(alone=20), batch=4) as embedder:
        vectors = await embedder.embed(texts)
    assert vectors == pytest.approx(np.array([unit("a"), unit("b" * 15), unit("c"), unit("d")]), abs=1e-6)


async def test_a_text_that_is_refused_again_is_the_cause_and_does_not_touch_the_circuit() -> None:
    picky = Picky()
    async with a_picky_one(picky, batch=16) as embedder:
        for _ in range(6):
            with pytest.raises(DependencyRejected):
                await embedder.embed(["ok"] * 15 + ["poison poison"])
        assert (await embedder.embed(["fine"]))[0] == pytest.approx(unit("fine"), abs=1e-6)
    assert len(picky.asked) < 6 * 12


@pytest.mark.parametrize("provider", ["openai", "ollama"])
async def test_a_rotated_key_is_picked_up_without_an_error(provider: str, tmp_path: Path) -> None:
    key, file = "old", tmp_path / "key"
    file.write_text("old", encoding="utf-8")

    async def answer(request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        if request.headers.get("authorization") != f"Bearer {key}":
            return web.Response(status=401)
        return web.json_response({"embeddings": [numbers(text) for text in texts], **openai_answer(texts, encoded=False)})

    path = {"openai": "/v1/embeddings", "ollama": "/api/embed"}[provider]
    async with an_endpoint(path, answer) as url, an_embedder(provider, url, api_key_file=file) as embedder:
        await embedder.embed(["a"])
        key = "new"
        file.write_text("new", encoding="utf-8")
        await embedder.embed(["a"])


@pytest.mark.parametrize(
    ("usage", "expected"), [({"prompt_tokens": 5}, [5]), (None, []), ({"prompt_tokens": -5}, [0]), ({"prompt_tokens": "5"}, [])]
)
async def test_the_tokens_that_an_endpoint_tells_are_counted(usage: Any, expected: list[int]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(openai_answer((await request.json())["input"], encoded=False) | {"usage": usage})

    counted: list[int] = []
    async with an_endpoint("/v1/embeddings", answer) as url:
        settings = EmbeddingSettings(provider="openai", model="m", dim=DIM, base_url=url)
        embedder = create_embedder(settings, Breakers(BreakerSettings()), counted=counted.append)
        await embedder.embed(["a"])
        await embedder.close()
    assert counted == expected


async def test_an_endpoint_that_knows_no_encoding_is_asked_without_it_from_then_on() -> None:
    seen: list[bool] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        seen.append("encoding_format" in body)
        if seen[-1]:
            message = "litellm.UnsupportedParamsError: Setting {'encoding_format': 'base64'} is not supported by ollama."
            return web.json_response({"error": {"message": message, "param": None, "code": "400"}}, status=400)
        return web.json_response(openai_answer(body["input"], encoded=False))

    async with an_endpoint("/v1/embeddings", answer) as url, an_embedder("openai", url) as embedder:
        await embedder.embed(["a"])
        assert (await embedder.embed(["bb"]))[0] == pytest.approx(unit("bb"), abs=1e-6)
    assert seen == [True, False, False]


async def test_an_answer_is_read_up_to_what_its_vectors_can_need() -> None:
    async def flood(_request: web.Request) -> web.Response:
        return web.Response(text=f'{{"data": [], "rest": "{"x" * 2_000_000}"}}')

    async with an_endpoint("/v1/embeddings", flood) as url, an_embedder("openai", url) as embedder:
        with pytest.raises(DependencyUnavailable, match="stop answering"):
            await embedder.embed(["a"])


@pytest.mark.parametrize(
    ("text", "least", "most"), [("", 0, 0), ("pump", 1, 1), ("internationalisation", 2, 5), ("a, b!", 4, 4), ("字" * 8, 2, 12)]
)
async def test_tokens_are_estimated(text: str, least: int, most: int) -> None:
    async with an_embedder("openai", "http://127.0.0.1:9") as embedder:
        assert least <= embedder.count_tokens(text) <= most
