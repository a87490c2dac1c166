"""Routing: measured on committed questions that it was not made with; explained; never wrong about what is there."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shield.errors import DependencyUnavailable
from shield.knowledge.embedding import create_embedder
from shield.knowledge.embedding.port import Embedder
from shield.resilience import Breakers
from shield.service.routing import Router, Vectors, by_rule
from shield.settings import BreakerSettings, EmbeddingSettings

QUESTIONS = tomllib.loads((Path(__file__).parents[1] / "data" / "routing_questions.toml").read_text(encoding="utf-8"))["question"]


class Away:
    """An embedder that does not answer."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        raise DependencyUnavailable(service="embedding")

    async def embed_query(self, text: str) -> Vectors:
        raise DependencyUnavailable(service="embedding")


class Whole:
    """An embedder with its questions, as the cached one has."""

    def __init__(self, inner: Embedder) -> None:
        self.inner = inner

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return await self.inner.embed(texts)

    async def embed_query(self, text: str) -> Vectors:
        vector: Vectors = (await self.inner.embed([text]))[0]
        return vector


async def test_most_questions_go_the_way_that_suits_them() -> None:
    embedder = Whole(create_embedder(EmbeddingSettings(), Breakers(BreakerSettings())))
    router = Router(embedder)
    table: Counter[tuple[str, str]] = Counter()
    misses = []
    for question in QUESTIONS:
        found = await router.route(question["text"], has_graph=True, filtered=False)
        got = "fast" if found.mode == "naive" else "deep"
        table[question["want"], got] += 1
        if got != question["want"]:
            misses.append(f"{question['text']} -> {got}: {found.why}")
    await embedder.inner.close()
    share = sum(count for (want, got), count in table.items() if want == got) / table.total()
    print(f"{share:.0%} of {table.total()} right, {dict(table)}", *misses, sep="\n")
    assert table.total() >= 40
    assert share >= 0.85, misses


def test_no_measured_question_is_an_example() -> None:
    known = tomllib.loads((files("shield.service") / "routing_examples.toml").read_text(encoding="utf-8"))
    assert not {question["text"] for question in QUESTIONS} & {*known["fast"], *known["deep"]}


async def test_a_base_without_a_graph_and_a_filtered_question_take_the_fast_path() -> None:
    router = Router(Away())
    question = "How does the relay relate to the workers?"
    assert (await router.route(question, has_graph=True, filtered=False)).mode == "mix"
    assert (await router.route(question, has_graph=False, filtered=False)).mode == "naive"
    assert (await router.route(question, has_graph=True, filtered=True)).mode == "naive"


async def test_without_an_embedder_what_no_rule_claims_takes_the_fast_path() -> None:
    found = await Router(Away()).route("serial number of pump 17", has_graph=True, filtered=False)
    assert (found.mode, found.why) == ("naive", "No rule asks for the graph.")


@given(st.text(max_size=4000))
def test_the_rules_take_any_text_and_always_give_a_reason(text: str) -> None:
    found = by_rule(text, has_graph=True, filtered=False)
    assert found is None or found.why.endswith(".")
