"""Terms and weights of the keyword search."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.knowledge.bm25 import AVERAGE_LENGTH, K1, B, document_vector, query_vector, tokenise


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The Pump fails.", ["the", "pump", "fail"]),
        ("E4711", ["e4711", "4711"]),
        ("foo_bar", ["foo_bar", "foo", "bar"]),
        ("a.b", ["a.b"]),
        ("shield.jobs", ["shield.jobs", "shield", "job"]),
        ("getHTTPValue()", ["gethttpvalue", "get", "http", "value"]),
        ("state-of-the-art", ["state-of-the-art", "state", "of", "the", "art"]),
        ("10.0.0.1:8080", ["10.0.0.1:8080", "10", "8080"]),
        ("C++ and C#", ["c++", "and", "c#"]),
        ("ponies horses glass bus gas pumps", ["pony", "horse", "glass", "bus", "gas", "pump"]),
        ("ﬁne ＣＡＦÉ", ["fine", "café"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("第3章", ["第", "3", "章"]),
        ("", []),
        ("--- ... !!!", []),
    ],
)
def test_terms(text: str, terms: list[str]) -> None:
    assert list(tokenise(text)) == terms


def test_an_identifier_is_found_whole_and_by_its_parts() -> None:
    document = set(document_vector("Set SHIELD_DATA_DIR before `shield up`.").indices)
    for query in ("SHIELD_DATA_DIR", "data dir", "shield_data_dir"):
        assert set(query_vector(query).indices) <= document


def test_singular_and_plural_find_each_other() -> None:
    assert query_vector("pumps") == query_vector("pump")


def test_a_documents_weight_is_bm25s_term_part() -> None:
    vector = document_vector("pump pump valve")
    weights = dict(zip(vector.indices, vector.values, strict=True))
    damping = K1 * (1 - B + B * 3 / AVERAGE_LENGTH)
    assert weights[crc32(b"pump")] == pytest.approx(2 * (K1 + 1) / (2 + damping))
    assert weights[crc32(b"valve")] == pytest.approx(1 * (K1 + 1) / (1 + damping))


def test_a_term_counts_less_in_a_long_text() -> None:
    short, long = document_vector("pump"), document_vector("pump " + "filler " * 300)
    weight = dict(zip(long.indices, long.values, strict=True))[crc32(b"pump")]
    assert weight < short.values[0]


def test_a_question_drops_stop_words_unless_there_is_nothing_else() -> None:
    assert query_vector("what is the pump?") == query_vector("pump")
    assert query_vector("who is it").indices
    assert query_vector("?!").indices == ()


@given(st.text())
def test_any_text_gives_sorted_unique_indices_with_positive_weights(text: str) -> None:
    for vector in (document_vector(text), query_vector(text)):
        assert list(vector.indices) == sorted(set(vector.indices))
        assert all(0 <= index < 2**32 for index in vector.indices)
        assert all(0 < value <= K1 + 1 for value in vector.values)
        assert len(vector.indices) == len(vector.values)


@given(st.text(st.characters(categories=["L", "N", "P", "Z"])))
def test_a_text_is_found_by_each_of_its_terms(text: str) -> None:
    assert set(query_vector(text).indices) <= set(document_vector(text).indices)


def test_a_huge_word_costs_one_pass() -> None:
    assert len(document_vector("x" * 500_000).indices) == 1
    assert len(document_vector("x." * 200_000).indices) <= 1
    assert len(document_vector("aB" * 100_000).indices) < 5
