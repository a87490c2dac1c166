"""Globs over paths: what they mean, against a slow model of them, and that nothing makes them slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.sources.globs import Globs
from shield.sources.urls import canonical


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("/docs/**", "/docs/a/b.html", True),
        ("/docs/**", "/docs/", True),
        ("/docs/**", "/docs", False),
        ("/docs/*", "/docs/a", True),
        ("/docs/*", "/docs/a/b", False),
        ("/docs/*/api", "/docs/v2/api", True),
        ("**/print", "/a/b/print", True),
        ("**.pdf", "/files/a.pdf", True),
        ("*.pdf", "/files/a.pdf", False),
        ("/a***b", "/a/x/b", True),
        ("**", "/anything/at?all", True),
        ("/Docs/**", "/docs/a", False),
        ("/calendar", "/calendar?month=2", True),
        ("/calendar?month=*", "/calendar?month=2", True),
        ("/calendar?month=*", "/calendar", False),
        ("/calendar?month=*", "/calendar?next=/a/b&month=2", False),
        ("/search?**", "/search?q=a/b", True),
        ("/straße/**", "/straße/1", True),
        ("/a b", "/a%20b", True),
        ("/%7euser/*", "/~user/x", True),
        ("/a.b", "/axb", False),
        ("/[ab]+", "/a", False),
    ],
)
def test_what_a_glob_matches(glob: str, path: str, matches: bool) -> None:
    assert (canonical(f"https://example.com:8443{path}") in Globs([glob])) is matches


def test_one_of_many_is_enough_and_none_matches_nothing() -> None:
    assert "http://h/b" in Globs(["/a", "/b", "/c?x"])
    assert "http://h/c?x" in Globs(["/a", "/b", "/c?x"])
    assert "http://h/d" not in Globs(["/a", "/b", "/c?x"])
    assert not Globs()
    assert "http://h/" not in Globs()


def model(glob: str, text: str) -> bool:
    """The same by regular expression."""
    parts = re.findall(r"\*+|[^*]", glob)
    pattern = "".join("[^/]*" if part == "*" else ".*" if part[0] == "*" else re.escape(part) for part in parts)
    return re.fullmatch(pattern, text, re.DOTALL) is not None


@given(st.lists(st.text("ab/*", min_size=1, max_size=7), min_size=1, max_size=4), st.text("ab/", max_size=10))
def test_it_agrees_with_the_model(globs: list[str], path: str) -> None:
    assert (f"http://h/{path}" in Globs(globs)) is any(model(glob, f"/{path}") for glob in globs)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.text(st.characters(codec="ascii"), max_size=40))
def test_any_text_is_a_glob_and_any_address_an_address(glob: str, path: str) -> None:
    assert (f"http://h/{path}" in Globs([glob])) in {True, False}


def test_fifty_hostile_globs_take_one_pass_over_the_longest_address() -> None:
    hostile = Globs([f"/{'**a' * 80}{n}" for n in range(50)])
    assert not any("http://h/" + "a" * 2030 in hostile for _ in range(20))  # a backtracking matcher does not come back from the first
