"""One bearer header, of bounded length and plain form, and nothing else."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.auth.bearer import MAX_TOKEN, bearer, header_of, is_name, token_type
from shield.errors import CredentialInvalid


def test_a_token_is_read_from_the_one_header() -> None:
    assert bearer([]) is None
    assert bearer(["Bearer abc.d-e_f~+/=="]) == "abc.d-e_f~+/=="
    assert bearer(["bEaReR   abc "]) == "abc"


@pytest.mark.parametrize(
    "values",
    [
        ["Bearer a", "Bearer a"], ["Bearer a", ""], ["Basic YTpi"], ["Bearer"], ["Bearer "], [""], ["abc"], ["Bearer a b"], ["Bearer a,b"],
        ["Bearer ä"], ["Bearer a\tb"], ["Bearer " + "a" * (MAX_TOKEN + 1)], ["Bearer =a"],
    ],
)  # fmt: skip
def test_anything_else_is_refused(values: list[str]) -> None:
    with pytest.raises(CredentialInvalid):
        bearer(values)


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        found = bearer([text])
    except CredentialInvalid:
        return
    assert found is not None
    assert found.isascii()


@given(st.text(max_size=100))
def test_no_text_breaks_the_reader_of_a_jwts_header(text: str) -> None:
    assert isinstance(header_of(text), dict)
    assert token_type(f"{text}.b.c") is None or isinstance(token_type(f"{text}.b.c"), str)


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_the_type_is_that_of_a_jwt_of_three_parts() -> None:
    assert token_type(f"{segment({'typ': 'x'})}.b.c") == "x"
    assert token_type(f"{segment({'typ': 'x'})}.b") is None
    assert token_type(f"{segment({'typ': 7})}.b.c") is None
    assert token_type(f"{segment(['typ'])}.b.c") is None
    assert header_of(base64.urlsafe_b64encode(b"[" * 5000).decode()) == {}


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("alice", True),
        ("a b", True),
        ("Grüße|1", True),
        ("", False),
        (" a", False),
        ("a\x00", False),
        ("a\u202eb", False),
        (7, False),
        ("a" * 256, False),
    ],
)
def test_a_principals_name_is_short_and_visible(value: object, good: bool) -> None:
    assert is_name(value) is good
