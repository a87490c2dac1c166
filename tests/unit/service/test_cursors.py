"""Cursors are opaque, short-lived and bound to their query."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.errors import CursorInvalid
from shield.service.cursors import Cursors

SECRET = b"s" * 32


@given(position=st.text(max_size=300), binding=st.lists(st.text(max_size=20), max_size=4))
def test_a_cursor_gives_its_position_back_to_the_same_query(position: str, binding: list[str]) -> None:
    cursors = Cursors(SECRET, timedelta(minutes=10))
    assert cursors.read(cursors.make(position, *binding), *binding) == position


def test_a_number_comes_back_as_a_number() -> None:
    cursors = Cursors(SECRET, timedelta(minutes=10))
    assert cursors.read_number(cursors.make(17, "q"), "q") == 17
    assert cursors.read_number(None, "q") == 0


def test_no_cursor_is_the_beginning() -> None:
    assert Cursors(SECRET, timedelta(minutes=10)).read(None, "anna", "query") is None


@pytest.mark.parametrize("binding", [("bert", "query"), ("anna", "other"), ("anna",)])
def test_a_cursor_of_another_query_or_principal_is_refused(binding: tuple[str, ...]) -> None:
    cursors = Cursors(SECRET, timedelta(minutes=10))
    with pytest.raises(CursorInvalid):
        cursors.read(cursors.make(5, "anna", "query"), *binding)


def test_a_cursor_expires() -> None:
    now = 1000.0
    cursor = Cursors(SECRET, timedelta(minutes=10), lambda: now).make(5, "q")
    with pytest.raises(CursorInvalid):
        Cursors(SECRET, timedelta(minutes=10), lambda: now + 601).read(cursor, "q")


@given(st.text(max_size=100))
def test_garbage_is_refused(cursor: str) -> None:
    if cursor:
        with pytest.raises(CursorInvalid):
            Cursors(SECRET, timedelta(minutes=10)).read(cursor, "q")


def test_a_cursor_of_another_secret_is_refused() -> None:
    with pytest.raises(CursorInvalid):
        Cursors(b"x" * 32, timedelta(minutes=10)).read(Cursors(SECRET, timedelta(minutes=10)).make(1, "q"), "q")
