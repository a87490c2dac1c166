"""Shield's providers through a real LiteLLM proxy: answers, vectors, and what its errors mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from shield.errors import DependencyMisconfigured, DependencyRejected, DependencyThrottled, DependencyUnavailable, ShieldError
from shield.knowledge.embedding import create_embedder
from shield.knowledge.embedding.port import Embedder
from shield.knowledge.llm import Llm, create_llm
from shield.resilience import Breakers
from shield.settings import BreakerSettings, EmbeddingSettings, LlmSettings
from tests.litellm.conftest import Proxy
from tests.peers.llm import LlmPeer, vector

pytestmark = pytest.mark.asyncio(loop_scope="package")

MODELS = ["small", "small-ollama"]
EMBEDDERS = ["embed", "embed-ollama"]


@asynccontextmanager
async def a_model(proxy: Proxy, name: str, key: str | None = None) -> AsyncIterator[Llm]:
    settings = LlmSettings.model_validate({"provider": "openai", "base_url": proxy.url, "model": name, "api_key": key or proxy.key})
    llm = create_llm(settings, Breakers(BreakerSettings()))
    assert llm is not None
    yield llm
    await llm.close()


@asynccontextmanager
async def an_embedder(proxy: Proxy, name: str) -> AsyncIterator[Embedder]:
    settings = EmbeddingSettings.model_validate(
        {"provider": "openai", "base_url": proxy.url, "model": name, "dim": 8, "api_key": proxy.key}
    )
    embedder = create_embedder(settings, Breakers(BreakerSettings()))
    yield embedder
    await embedder.close()


@pytest.fixture(autouse=True)
def well_behaved(peer: LlmPeer) -> None:
    peer.statuses.clear()
    peer.calls.clear()
    peer.finish, peer.key = "stop", None
    peer.reply = lambda prompt: f'{{"you_said": "{prompt}"}}'


@pytest.mark.parametrize("name", MODELS)
async def test_a_model_answers_and_its_tokens_are_counted(proxy: Proxy, peer: LlmPeer, name: str) -> None:
    async with a_model(proxy, name) as llm:
        completion = await llm.complete("hello", system="be brief", json=True)
    assert completion.text == '{"you_said": "hello"}'
    assert (completion.tokens_in, completion.tokens_out) == (11, 7)
    (asked,) = peer.calls
    assert asked.get("max_tokens") == 4096 or asked["options"]["num_predict"] == 4096


@pytest.mark.parametrize("name", EMBEDDERS)
async def test_vectors_come_back_in_order(proxy: Proxy, name: str) -> None:
    texts = ["one", "two two", "three three three"]
    async with an_embedder(proxy, name) as embedder:
        found = await embedder.embed(texts)
    expected = np.stack([np.frombuffer(vector(text), dtype="<f4") for text in texts])
    assert found == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True), abs=1e-5)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, DependencyRejected),
        (413, DependencyRejected),
        (422, DependencyRejected),
        (401, DependencyMisconfigured),
        (403, DependencyMisconfigured),
        (404, DependencyMisconfigured),
        (429, DependencyThrottled),
        (408, DependencyUnavailable),
        (500, DependencyUnavailable),
        (503, DependencyUnavailable),
    ],
)
@pytest.mark.parametrize("name", MODELS)
async def test_an_error_behind_the_proxy_keeps_its_meaning(
    proxy: Proxy, peer: LlmPeer, name: str, status: int, error: type[ShieldError]
) -> None:
    peer.statuses.extend([status] * 3)
    async with a_model(proxy, name) as llm:
        with pytest.raises(error) as raised:
            await llm.complete("hello")
    assert "quotes" not in str(raised.value)


@pytest.mark.parametrize(("name", "key"), [("small", "sk-wrong"), ("unknown", None)])
async def test_a_wrong_key_and_an_unknown_model_are_our_configuration(proxy: Proxy, name: str, key: str | None) -> None:
    async with a_model(proxy, name, key) as llm:
        with pytest.raises(DependencyMisconfigured):
            await llm.complete("hello")


async def test_an_unknown_embedding_model_is_our_configuration(proxy: Proxy) -> None:
    async with an_embedder(proxy, "unknown") as embedder:
        with pytest.raises(DependencyMisconfigured):
            await embedder.embed(["one"])


@pytest.mark.parametrize("name", MODELS)
async def test_half_an_answer_is_refused(proxy: Proxy, peer: LlmPeer, name: str) -> None:
    peer.finish = "length"
    async with a_model(proxy, name) as llm:
        with pytest.raises(DependencyRejected, match="cut off"):
            await llm.complete("hello")
