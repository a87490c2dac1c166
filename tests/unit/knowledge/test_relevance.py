"""Words that carry meaning."""

from __future__ import annotations

import pytest

from shield.knowledge.relevance import content_terms, identifiers, lexically_found, searchable, shares_a_word


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("What does E4711 mean?", {"e4711"}),
        ("set max_pages and client.send", {"max_pages", "client.send"}),
        ("in 2024 the 2nd well-known man, e.g. I, said no", set()),
    ],
)
def test_identifiers_are_names_not_numbers_or_words(text: str, names: set[str]) -> None:
    assert identifiers(text) == names


def test_an_identifier_or_all_words_that_matter_are_found() -> None:
    texts = ["Fault E4711 means that the rotor is blocked."]
    assert lexically_found("tell me about E4711 please", texts)
    assert lexically_found("the blocked rotors", texts)
    assert not lexically_found("blocked valve", texts)
    assert not lexically_found("?", texts)


def test_stop_words_carry_no_meaning() -> None:
    assert content_terms("What is the pump?") == {"pump"}
    assert shares_a_word("What is the pump?", ["the pumps"])
    assert not shares_a_word("What is the pump?", ["the is what"])


@pytest.mark.parametrize(("query", "can"), [("pump", True), ("\u6c34", True), ("a", False), ("?!", False)])
def test_a_query_needs_a_word(query: str, can: bool) -> None:
    assert searchable(query) is can
