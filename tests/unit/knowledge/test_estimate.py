"""The estimate of tokens that reservations rest on is rather too high than too low."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.knowledge.embedding.builtin import BuiltinEmbedder
from shield.knowledge.metering import estimate_tokens


@pytest.fixture(scope="module")
def wordpieces() -> BuiltinEmbedder:
    return BuiltinEmbedder(batch=1, threads=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The quick brown fox jumps over the lazy dog, internationally. " * 30,
        "Ein Satz auf Deutsch, mit Umlauten: äöü, und einer Straßenbahnhaltestelle. " * 30,
        "知識庫 文書 検索。" * 50,
        "x = {'a': [1, 2, 3]}\n" * 50,
        '{"passages": [{"n": 1, "entities": []}]}' * 20,
    ],
    ids=["nothing", "English", "German", "Chinese", "code", "JSON"],
)
def test_it_is_above_the_wordpieces_of_a_text(wordpieces: BuiltinEmbedder, text: str) -> None:
    assert estimate_tokens(text) >= wordpieces.count_tokens(text)


@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(text: str, more: str) -> None:
    assert 0 < estimate_tokens(text) <= estimate_tokens(f"{text} {more}")
