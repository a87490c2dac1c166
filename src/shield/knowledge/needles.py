r"""What a deletion proof looks for, and how a text is searched for all of it in one pass.

A sentence of at least eight words becomes pieces of 8 to 23 words, so a copy that was cut, wrapped, re-spaced or put into JSON is still found:
pieces and texts are compared as lower-case words, and escapes (`\n`, `\"`, `\u00e4`) are read both as they stand and undone. A
piece is looked for only in texts that hold its longest word, so the cost is one split into words a text, whatever the number of pieces.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from uuid import UUID

from shield.knowledge.sentences import sentences, words

MIN_WORDS = 8
_PIECE = 16
_ESCAPE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|([nrtbf])|([\"/\\']))")
_RUN = re.compile(rb"[\t-\r\x20-\x7e\x80-\xff]{15,}")  # eight words are at least that long
_MAX_INFLATED = 64 * 1024**2


class Needles:
    """Sentences to look for, each belonging to an owner (a document)."""

    def __init__(self) -> None:
        self._owners: dict[str, set[UUID]] = {}
        self._by_anchor: dict[str, list[str]] = defaultdict(list)
        self._sentences: dict[UUID, set[tuple[str, ...]]] = defaultdict(set)

    def add(self, owner: UUID, text: str, *, besides: str = "") -> None:
        """Look for every sentence of `text`, except those that are a part of `besides` (the source's own name, kept in the books)."""
        known = f" {' '.join(words(besides))} "
        for sentence in sentences(text):
            tokens = words(sentence.text)
            if len(tokens) < MIN_WORDS or f" {' '.join(tokens)} " in known:
                continue
            pieces = tuple(_pieces(tokens))
            self._sentences[owner].add(pieces)
            for piece in pieces:
                if piece not in self._owners:
                    self._owners[piece] = set()
                    self._by_anchor[max(piece.split(), key=len)].append(piece)
                self._owners[piece].add(owner)

    def sentences(self, owner: UUID) -> int:
        """How many different sentences of this owner are looked for."""
        return len(self._sentences[owner])

    def sentences_with(self, owner: UUID, pieces: AbstractSet[str]) -> int:
        """How many of them hold at least one of these pieces."""
        return sum(not pieces.isdisjoint(sentence) for sentence in self._sentences[owner])

    def owners(self, piece: str) -> set[UUID]:
        """Whose piece this is; nobody's if it is not looked for."""
        return self._owners.get(piece, set())

    def found_in(self, text: str) -> set[str]:
        """The pieces that `text` holds, as it stands or with its escapes undone."""
        found = self._found(text)
        if "\\" in text:
            found |= self._found(_ESCAPE.sub(_unescaped, text))
        return found

    def found_in_bytes(self, data: bytes) -> set[str]:
        """The pieces in a binary value: read as UTF-8, and unpacked if it is zlib or gzip."""
        found: set[str] = set()
        for part in (data, _inflate(data)):
            for run in _RUN.finditer(part):
                found |= self.found_in(run[0].decode("utf-8", "ignore"))
        return found

    def _found(self, text: str) -> set[str]:
        tokens = words(text)
        anchors = self._by_anchor.keys() & set(tokens)
        if not anchors:
            return set()
        line = f" {' '.join(tokens)} "
        return {piece for anchor in anchors for piece in self._by_anchor[anchor] if f" {piece} " in line}


def _pieces(tokens: list[str]) -> Iterator[str]:
    """Consecutive runs of 16 words; the last one takes a rest of fewer than eight."""
    start = 0
    while start < len(tokens):
        end = start + _PIECE
        if len(tokens) - end < MIN_WORDS:
            end = len(tokens)
        yield " ".join(tokens[start:end])
        start = end


def _unescaped(match: re.Match[str]) -> str:
    code, _, literal = match.groups()
    if code:
        return chr(int(code, 16))
    return literal or " "


def _inflate(data: bytes) -> bytes:
    """The beginning of what is packed, or nothing."""
    if data[:2] != b"\x1f\x8b" and (len(data) < 2 or data[0] != 0x78 or (data[0] * 256 + data[1]) % 31):
        return b""
    try:
        return zlib.decompressobj(wbits=47).decompress(data, _MAX_INFLATED)
    except zlib.error:
        return b""


def all_strings(value: object) -> Iterable[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from all_strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from all_strings(item)
