"""What a deletion proof finds in a text."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.knowledge.needles import Needles, all_strings

OWNER = uuid4()
SENTENCE = "The vault \u00fcber the painting opens with seventeen and four."


def looking_for(text: str, owner: UUID = OWNER, besides: str = "") -> Needles:
    needles = Needles()
    needles.add(owner, text, besides=besides)
    return needles


@pytest.mark.parametrize(
    "copy",
    [
        SENTENCE,
        f"before {SENTENCE} after",
        SENTENCE.upper(),
        SENTENCE.replace(" ", "\n\t "),
        json.dumps(SENTENCE),
        json.dumps({"a": json.dumps([SENTENCE])}),
        json.dumps(f"line\n{SENTENCE}\nline"),
    ],
)
def test_a_copy_is_found_however_it_is_written(copy: str) -> None:
    assert looking_for(SENTENCE).found_in(copy)


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, bytes])
def test_a_copy_in_bytes_is_found(pack: object) -> None:
    assert looking_for(SENTENCE).found_in_bytes(pack(SENTENCE.encode()))  # type: ignore[operator]


def test_binary_noise_around_a_copy_does_not_hide_it() -> None:
    assert looking_for(SENTENCE).found_in_bytes(b"\x00\x01\x02" * 50 + b"\x00" + SENTENCE.encode() + b"\x00\xfe\x03")


def test_other_words_are_not_found() -> None:
    needles = looking_for(SENTENCE)
    assert not needles.found_in(SENTENCE.replace("four", "five"))
    assert not needles.found_in_bytes(b"x\x9c broken zlib that is long enough to be looked at")


def test_short_sentences_and_the_own_name_are_not_looked_for() -> None:
    url = "https://example.org/a/b/c/d/e/f/g/h"
    needles = looking_for(f"Too short.\n{url}\n{SENTENCE}", besides=url)
    assert needles.sentences(OWNER) == 1


def test_each_sentence_counts_once_and_belongs_to_all_who_hold_it() -> None:
    needles = looking_for(f"{SENTENCE}\n{SENTENCE}")
    other = uuid4()
    needles.add(other, SENTENCE)
    (piece,) = needles.found_in(SENTENCE)
    assert needles.owners(piece) == {OWNER, other}
    assert needles.owners("something else") == set()
    assert (needles.sentences(OWNER), needles.sentences_with(OWNER, {piece}), needles.sentences_with(OWNER, set())) == (1, 1, 0)


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=8, max_size=80), st.integers(0, 79))
def test_of_a_long_sentence_any_run_of_31_words_is_found(words: list[str], start: int) -> None:
    needles = looking_for(" ".join(words))
    run = words[start : start + 31] if len(words) - start >= 31 else words
    assert needles.found_in(f"x {' '.join(run)} y") or len(run) < 31 < len(words)


def test_a_megabyte_is_searched_for_ten_thousand_sentences_in_a_moment() -> None:
    needles = looking_for("\n".join(f"sentence number n{n} of the very long document that is deleted" for n in range(10_000)))
    text = " ".join(f"other text {n} with words of its own" for n in range(30_000))
    started = time.perf_counter()
    assert not needles.found_in(text)
    assert time.perf_counter() - started < 1.5


def test_every_string_of_a_json_value_is_seen() -> None:
    assert list(all_strings({"a": ["b", 1, {"c": None, "d": "e"}]})) == ["a", "b", "c", "d", "e"]
