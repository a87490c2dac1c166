"""Names: pure, unambiguous, and accepted where they are used."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield_operator.names import job_name, kb_name, principal, runner

SLUG = re.compile(r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")
PARTS = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


class TestKnowledgeBaseName:
    def test_short_names_are_readable(self) -> None:
        assert kb_name("team-a", "handbook") == "team-a--handbook"

    def test_forty_characters_are_the_longest_plain_name(self) -> None:
        assert kb_name("n" * 20, "b" * 18) == "n" * 20 + "--" + "b" * 18
        assert re.fullmatch(r"n{12}--b{12}--[0-9a-f]{8}", kb_name("n" * 20, "b" * 19))

    @pytest.mark.parametrize(("one", "other"), [(("a--b", "c"), ("a", "b--c")), (("a", "b.c"), ("a", "b-c"))])
    def test_names_that_would_read_the_same_differ(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        assert kb_name(*one) != kb_name(*other)

    def test_a_cut_leaves_no_dash_at_an_end(self) -> None:
        assert kb_name("twelve-char--x", "b").startswith("twelve-char--b--")

    @settings(max_examples=40)
    @given(PARTS, PARTS)
    def test_every_name_is_a_slug(self, namespace: str, name: str) -> None:
        assert SLUG.fullmatch(kb_name(namespace, name))

    @settings(max_examples=40)
    @given(st.tuples(PARTS, PARTS), st.tuples(PARTS, PARTS))
    def test_two_bases_never_share_a_name(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        assert (kb_name(*one) == kb_name(*other)) == (one == other)


def test_the_other_names() -> None:
    assert job_name("crawl", 2) == "crawl-2"
    assert principal("team-a") == "k8s:team-a"
    assert runner("0-1") == "ingestjob:0-1"
