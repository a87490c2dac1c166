"""The language model's two dialects, and what each kind of trouble means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from shield.errors import (
    CircuitOpen,
    DependencyMisconfigured,
    DependencyRejected,
    DependencyThrottled,
    DependencyUnavailable,
    ShieldError,
)
from shield.knowledge.llm import Completion, Llm, create_llm
from shield.resilience import Breakers
from shield.settings import BreakerSettings, LlmSettings
from tests.peers.llm import LlmPeer, llm_peer


@pytest.fixture
async def peer() -> AsyncIterator[LlmPeer]:
    async with llm_peer() as peer:
        peer.reply = lambda prompt: f"You said: {prompt}"
        yield peer


@pytest.fixture(params=["openai", "ollama"])
def provider(request: pytest.FixtureRequest) -> Literal["openai", "ollama"]:
    value: Literal["openai", "ollama"] = request.param
    return value


@pytest.fixture
async def llm(peer: LlmPeer, provider: Literal["openai", "ollama"]) -> AsyncIterator[Llm]:
    llm = make(peer, provider)
    yield llm
    await llm.close()


def make(peer: LlmPeer, provider: Literal["openai", "ollama"], **more: Any) -> Llm:
    settings = LlmSettings(provider=provider, base_url=peer.url, model="small", api_key="sesame", **more)
    llm = create_llm(settings, Breakers(BreakerSettings()))
    assert llm is not None
    return llm


def test_none_is_configured_by_default() -> None:
    assert create_llm(LlmSettings(), Breakers(BreakerSettings())) is None


async def test_it_answers_and_counts(llm: Llm, peer: LlmPeer, provider: str) -> None:
    assert await llm.complete("hello", system="be brief") == Completion("You said: hello", 11, 7)
    assert llm.name == f"{provider}:small"
    assert [message["role"] for message in peer.calls[0]["messages"]] == ["system", "user"]
    assert peer.keys == ["Bearer sesame"]
    assert peer.calls[0]["stream"] is False


async def test_json_is_asked_for_in_the_dialect(llm: Llm, peer: LlmPeer, provider: str) -> None:
    await llm.complete("hello", json=True)
    asked = peer.calls[0].get("format") if provider == "ollama" else peer.calls[0].get("response_format", {}).get("type")
    assert asked in {"json", "json_object"}


async def test_the_address_may_come_with_its_prefix(peer: LlmPeer) -> None:
    settings = LlmSettings(provider="openai", base_url=f"{peer.url}/v1/", model="small")
    llm = create_llm(settings, Breakers(BreakerSettings()))
    assert llm is not None
    assert (await llm.complete("hello")).text
    await llm.close()
    assert peer.keys == [None]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, DependencyRejected),
        (413, DependencyRejected),
        (401, DependencyMisconfigured),
        (404, DependencyMisconfigured),
        (429, DependencyThrottled),
        (408, DependencyUnavailable),
        (500, DependencyUnavailable),
        (301, DependencyUnavailable),
    ],
)
async def test_a_status_is_its_error_and_never_quotes_the_answer(llm: Llm, peer: LlmPeer, status: int, error: type[ShieldError]) -> None:
    peer.statuses.append(status)
    with pytest.raises(error) as raised:
        await llm.complete("hello")
    assert "quotes" not in str(raised.value)
    if status == 429:
        assert raised.value.retry_after == 7


async def test_silence_ends_at_the_limit(llm: Llm, peer: LlmPeer) -> None:
    peer.silent = True
    with pytest.raises(DependencyUnavailable, match="in time"):
        await llm.complete("hello", timeout=timedelta(milliseconds=50))


async def test_no_server_at_all_is_unavailable_and_opens_the_circuit(provider: Literal["openai", "ollama"]) -> None:
    llm = make(LlmPeer(url="http://127.0.0.1:9"), provider)
    for _ in range(5):
        with pytest.raises(DependencyUnavailable):
            await llm.complete("hello")
    with pytest.raises(CircuitOpen):
        await llm.complete("hello")
    await llm.close()


async def test_half_an_answer_is_refused_and_an_empty_one_is_trouble(llm: Llm, peer: LlmPeer) -> None:
    peer.finish = "length"
    with pytest.raises(DependencyRejected, match="cut off"):
        await llm.complete("hello")
    peer.finish, peer.reply = "stop", lambda _: "  "
    with pytest.raises(DependencyUnavailable, match="nothing"):
        await llm.complete("hello")


async def test_calls_wait_their_turn_and_waiting_has_a_limit(peer: LlmPeer, provider: Literal["openai", "ollama"]) -> None:
    llm = make(peer, provider, concurrency=2)
    await asyncio.gather(*(llm.complete(str(n)) for n in range(8)))
    assert peer.widest == 2
    peer.silent = True
    blocking = [asyncio.create_task(llm.complete("x", timeout=timedelta(seconds=20))) for _ in range(2)]
    while peer.busy < 2:
        await asyncio.sleep(0.005)
    with pytest.raises(DependencyUnavailable, match="busy"):
        await llm.complete("y", timeout=timedelta(milliseconds=30))
    for task in blocking:
        task.cancel()
    await asyncio.gather(*blocking, return_exceptions=True)
    await llm.close()


async def test_the_longest_answer_is_asked_for_in_the_dialect(peer: LlmPeer, provider: Literal["openai", "ollama"]) -> None:
    llm = make(peer, provider, max_tokens=321)
    await llm.complete("hello")
    asked = peer.calls[0]["options"]["num_predict"] if provider == "ollama" else peer.calls[0]["max_tokens"]
    assert asked == 321
    await llm.close()


async def test_a_model_that_does_not_take_a_parameter_is_asked_without_it_from_then_on(peer: LlmPeer) -> None:
    peer.refuses = {"max_tokens", "temperature", "response_format"}
    llm = make(peer, "openai")
    answers = await asyncio.gather(*(llm.complete(str(n), json=True) for n in range(4)))
    assert [answer.text for answer in answers] == [f"You said: {n}" for n in range(4)]
    asked = len(peer.calls)
    await llm.complete("again", json=True)
    assert len(peer.calls) == asked + 1
    assert set(peer.calls[-1]) == {"model", "messages", "stream", "max_completion_tokens"}
    await llm.close()


async def test_a_model_that_always_refuses_a_parameter_refuses_the_input(peer: LlmPeer) -> None:
    peer.refuses = {"max_tokens", "max_completion_tokens"}
    llm = make(peer, "openai")
    with pytest.raises(DependencyRejected):
        await llm.complete("hello")
    assert len(peer.calls) == 2
    await llm.close()


async def test_a_rotated_key_needs_no_restart_and_a_wrong_one_opens_the_circuit(
    peer: LlmPeer, provider: Literal["openai", "ollama"], tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("first", encoding="utf-8")
    peer.key = "first"
    settings = LlmSettings(provider=provider, base_url=peer.url, model="small", api_key_file=file)
    breakers = Breakers(BreakerSettings())
    llm = create_llm(settings, breakers)
    assert llm is not None
    await llm.complete("hello")
    peer.key = "second"
    file.write_text("second", encoding="utf-8")
    await llm.complete("hello")
    assert not breakers.misconfigured()["llm"]
    peer.key = "third"
    with pytest.raises(DependencyMisconfigured):
        await llm.complete("hello")
    with pytest.raises(CircuitOpen):
        await llm.complete("hello")
    assert breakers.misconfigured()["llm"]
    await llm.close()


@pytest.mark.parametrize("count", [None, -3, True, "many", 1.5, float("inf"), 10**30])
async def test_a_count_of_tokens_that_is_none_counts_as_nothing_or_the_most(llm: Llm, peer: LlmPeer, count: Any) -> None:
    peer.counts = (count, 7)
    completion = await llm.complete("hello")
    assert completion.tokens_in in {0, 10**9}
    assert completion.tokens_out == 7


async def test_an_answer_of_no_use_tells_what_it_cost(llm: Llm, peer: LlmPeer) -> None:
    peer.finish = "length"
    with pytest.raises(DependencyRejected) as refused:
        await llm.complete("hello")
    assert (refused.value.details["tokens_in"], refused.value.details["tokens_out"]) == (11, 7)
