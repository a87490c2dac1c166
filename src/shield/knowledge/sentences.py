"""Sentences of a text, with their place: for answers that quote and for the proof that a deleted text is gone.

Lines end a sentence too, so a table's row, a list's item and a line of code count as one each. The split needs no language
model and runs in linear time; what it calls a sentence is always a verbatim slice of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]]{0,3}(?=\s)|\n")
_WORD = re.compile(r"\w+")
_LAST_WORD = re.compile(r"\S{1,12}$")
# A full stop behind these ends no sentence.
_ABBREVIATIONS = frozenset(
    [
        "e.g.",
        "i.e.",
        "etc.",
        "cf.",
        "vs.",
        "al.",
        "fig.",
        "figs.",
        "no.",
        "nos.",
        "eq.",
        "sec.",
        "ch.",
        "approx.",
        "dr.",
        "mr.",
        "mrs.",
        "ms.",
        "prof.",
        "st.",
        "inc.",
        "ltd.",
        "jr.",
        "sr.",
        "z.b.",
        "bzw.",
        "ca.",
    ]
)


@dataclass(frozen=True)
class Sentence:
    """`text == whole[start:end]`, without white space at its ends."""

    text: str
    start: int
    end: int


def sentences(text: str) -> Iterator[Sentence]:
    """The sentences of `text` in order; together they hold every character that is not white space."""
    start = 0
    for match in _END.finditer(text):
        if match[0].startswith(".") and _abbreviated(text, start, match.start() + 1):
            continue
        yield from _trimmed(text, start, match.end())
        start = match.end()
    yield from _trimmed(text, start, len(text))


def words(text: str) -> list[str]:
    """The words of a text in lower case, in order; punctuation and white space fall away."""
    return _WORD.findall(text.lower())


def _abbreviated(text: str, start: int, end: int) -> bool:
    last = _LAST_WORD.search(text, max(start, end - 12), end)
    if last is None:
        return False
    word = last[0].lstrip("([\"'").lower()
    return word in _ABBREVIATIONS or (len(word) == 2 and word[0].isalpha() and last[0][0].isupper())  # an initial: `J. Smith`


def _trimmed(text: str, start: int, end: int) -> Iterator[Sentence]:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    body = piece.strip()
    if body:
        yield Sentence(body, start + left, start + left + len(body))
