"""Chunks: pieces of a document that one embedding can stand for, cut along its structure.

A chunk lies in one section and holds at most `limit` wordpieces, its heading path included (MiniLM reads 256). It is filled with
neighbouring blocks of its section and ends, if it can without being less than half full, at the end of a block, else of a
sentence or line, else of a word. Prose cut inside a block is continued with an overlap of up to `overlap` wordpieces; tables are
cut between rows and repeat their header; code and lists between lines, both without overlap.

Offsets `[start, end)` refer to `Converted.text`, and `text` is exactly that slice, except for the later chunks of a cut table:
theirs is the header, a line break, and the slice. No word is lost: a heading that no chunk's path shows (nothing follows it, or it is too
long for a path) becomes a chunk itself. The work is one pass over the text, whatever the text is: a word without an end is cut
into pieces, and memory is that of one chunk. Same input, same chunks, on every machine.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import pairwise

from shield.knowledge.model import Chunk
from shield.sources.model import SEPARATOR, Block, BlockKind, Converted

CHUNKER = "shield-chunker-1"
"""Name of these rules; part of a document's content hash, so a change of rules is a change of content."""

Count = Callable[[str], int]

_WORD = re.compile(r"[^\s。！？]+[。！？]*|[。！？]+")  # noqa: RUF001  full-width marks end sentences
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]]*$")  # noqa: RUF001
_ABBREVIATION = re.compile(
    r"(?:\W|^)(?:[A-Za-z]|[A-Za-z]\.[A-Za-z]|[Dd]r|[Mm]rs?|[Pp]rof|[Ss]t|[Nn]o|[Ff]ig|[Ee]q|[Vv]ol|vs|cf|approx|ca|al)\.$"
)
_LONGEST_WORD = 512
"""Characters; a longer run without a space is cut (it is data, not language)."""
_CHARS_PER_TOKEN = 16
"""A run of characters weighs at least its length divided by this, so nothing is long and yet free (an unknown word is one wordpiece)."""


class _Cut(IntEnum):
    """What ends after an atom."""

    WORD = 0
    LINE = 1
    """A sentence of prose, a line of code, an item of a list, a row of a table."""
    BLOCK = 2


@dataclass(frozen=True, slots=True)
class _Atom:
    """What is never cut: a word with its place, its wordpieces, and what ends after it."""

    start: int
    end: int
    weight: int
    cut: _Cut
    prose: bool


@dataclass
class _Heading:
    text: str
    start: int
    level: int
    tokens: int
    shown: bool = False


@dataclass
class _Section:
    path: list[_Heading]
    blocks: list[tuple[int, Block]] = field(default_factory=list)


def chunk(converted: Converted, count_tokens: Count, limit: int = 240, overlap: int = 32) -> list[Chunk]:
    """Cut a document into chunks, in reading order; [] if it holds no text.

    Args:
        converted: the document.
        count_tokens: wordpieces of a text; must be about additive over words.
        limit: most wordpieces of a chunk as it is embedded (heading path and text).
        overlap: most wordpieces repeated where prose is cut.
    """
    return _Chunker(converted, count_tokens, limit, overlap).run()


class _Chunker:
    def __init__(self, converted: Converted, count_tokens: Count, limit: int, overlap: int) -> None:
        self._converted = converted
        self._text = converted.text
        self._count = count_tokens
        self._limit = limit
        self._overlap = overlap
        self._weights: dict[str, int] = {}
        self._starts: list[int] = []
        self._chunks: list[Chunk] = []

    def run(self) -> list[Chunk]:
        for section in self._sections():
            self._cut_section(section)
        ordered = sorted(self._chunks, key=lambda c: (c.start, c.end))
        return [replace(piece, ordinal=ordinal) for ordinal, piece in enumerate(ordered)]

    # -- structure ----------------------------------------------------------------------------------------------------

    def _sections(self) -> Iterator[_Section]:
        """Sections in reading order; a heading that no path has shown when its section ends is cut as text."""
        stack: list[_Heading] = []
        section = _Section([])
        at = 0
        for block in self._converted.blocks:
            self._starts.append(at)
            if block.kind is BlockKind.HEADING and block.text.strip():
                yield section
                level = min(max(block.level, 1), 6)
                while stack and stack[-1].level >= level:
                    self._close(stack)
                name = " ".join(block.text.split())
                stack.append(_Heading(name, at, level, self._weigh_word(name)))
                section = _Section(list(stack))
            else:
                section.blocks.append((at, block))
            at += len(block.text) + len(SEPARATOR)
        yield section
        while stack:
            self._close(stack)

    def _close(self, stack: list[_Heading]) -> None:
        heading = stack.pop()
        if not heading.shown:
            block = self._converted.blocks[bisect_right(self._starts, heading.start) - 1]
            self._cut_section(_Section(list(stack), [(heading.start, replace(block, kind=BlockKind.PARAGRAPH))]))

    def _path(self, headings: list[_Heading]) -> tuple[tuple[str, ...], int]:
        """The heading path that fits half of the limit, and its wordpieces; outer headings go first, then the inner one's end."""
        room = self._limit // 2
        kept: list[str] = []
        used = 0
        for heading in reversed(headings):
            if used + heading.tokens + 1 > room:
                if not kept:
                    kept, used = self._beginning(heading.text, room)
                break
            kept.append(heading.text)
            used += heading.tokens + 1
            heading.shown = True
        return tuple(reversed(kept)), used

    def _beginning(self, name: str, room: int) -> tuple[list[str], int]:
        """As many words of a long heading as fit; none if its first word does not."""
        end = used = 0
        for atom in self._words(name, 0, room):
            if used + atom.weight + 1 > room:
                break
            end, used = atom.end, used + atom.weight
        return ([name[:end]], used + 1) if end else ([], 0)

    # -- one section --------------------------------------------------------------------------------------------------

    def _cut_section(self, section: _Section) -> None:
        if not any(block.text.strip() for _, block in section.blocks):
            return
        path, used = self._path(section.path)
        budget = max(1, self._limit - used)
        run: list[tuple[int, Block]] = []
        for at, block in section.blocks:
            if block.kind is BlockKind.TABLE and self._weight_exceeds(block.text, budget):
                self._cut_run(run, path, budget)
                run = []
                self._cut_table(at, block, path, budget)
            else:
                run.append((at, block))
        self._cut_run(run, path, budget)

    def _cut_run(self, blocks: list[tuple[int, Block]], path: tuple[str, ...], budget: int) -> None:
        atoms = (atom for at, block in blocks for atom in self._atoms(at, block, budget))
        for piece in self._pack(atoms, budget):
            self._add(piece, path)

    def _cut_table(self, at: int, block: Block, path: tuple[str, ...], budget: int) -> None:
        """Rows, with the header before those that do not follow it anyway; a header too large to repeat is a row like others."""
        header_end = _header_end(block.text)
        header = block.text[:header_end].rstrip()
        if not header_end or self._weight_exceeds(header, budget // 2):
            self._cut_run([(at, replace(block, kind=BlockKind.CODE))], path, budget)
            return
        room = budget - self._count(header)
        rows = self._lines(block.text, at, room, begin=header_end)
        for number, piece in enumerate(self._pack(rows, room)):
            if number == 0:
                first = at + len(block.text) - len(block.text.lstrip())
                self._add([replace(piece[0], start=first), *piece[1:]], path)
            else:
                self._add(piece, path, header)

    def _add(self, atoms: list[_Atom], path: tuple[str, ...], header: str = "") -> None:
        start, end = atoms[0].start, atoms[-1].end
        text = self._text[start:end]
        page = self._converted.blocks[bisect_right(self._starts, start) - 1].page
        made = Chunk(0, f"{header}\n{text}" if header else text, start, end, 0, path, page)
        tokens = self._count(made.embedded_text)
        if tokens > self._limit and len(atoms) > 1:  # the count was not quite additive here (control characters)
            self._add(atoms[: len(atoms) // 2], path, header)
            self._add(atoms[len(atoms) // 2 :], path, header)
        else:
            self._chunks.append(replace(made, tokens=tokens))

    def _pack(self, atoms: Iterable[_Atom], budget: int) -> Iterator[list[_Atom]]:
        """Fill chunks with atoms in their order; see the module's docstring for where they end."""
        current: list[_Atom] = []
        used = repeated = 0  # the first `repeated` atoms are overlap
        for atom in atoms:
            weight = atom.weight + (_gap(current[-1], atom) if current else 0)
            while current and used + weight > budget:
                cut = _best_cut(current, budget, repeated)
                if cut > repeated:
                    yield current[:cut]
                    tail = self._tail(current[repeated:cut], budget)
                else:
                    tail = []  # the overlap leaves no room for what comes: do without
                    cut = repeated
                current, repeated = tail + current[cut:], len(tail)
                used = _weigh(current)
                weight = atom.weight + (_gap(current[-1], atom) if current else 0)
            current.append(atom)
            used += weight
        if len(current) > repeated:
            yield current

    def _tail(self, atoms: list[_Atom], budget: int) -> list[_Atom]:
        """The overlap after a cut: the last atoms of unfinished prose, from the start of a sentence if one is near."""
        if not atoms or not atoms[-1].prose or atoms[-1].cut is _Cut.BLOCK:
            return []
        room = min(self._overlap, budget // 4)
        first = len(atoms)
        sentence = None
        while first and (room := room - atoms[first - 1].weight) >= 0:
            before = atoms[first - 1]
            if first < len(atoms) and before.cut is not _Cut.WORD:
                sentence = first
                if before.cut is _Cut.BLOCK:
                    break
            first -= 1
        begin = first if sentence is None else sentence
        return atoms[begin:] if begin else []  # repeating all of a chunk would help nobody

    # -- atoms --------------------------------------------------------------------------------------------------------

    def _atoms(self, at: int, block: Block, budget: int) -> Iterator[_Atom]:
        """The atoms of a block, the last one ending it; a table that comes here fits a chunk and is one atom."""
        if block.kind is BlockKind.TABLE:
            words = list(self._words(block.text, at, budget, prose=False))
            if words:
                yield _Atom(words[0].start, words[-1].end, _weigh(words), _Cut.BLOCK, prose=False)
            return
        if block.kind in (BlockKind.LIST, BlockKind.CODE):
            atoms = self._lines(block.text, at, budget)
        else:
            atoms = self._words(block.text, at, budget)
        last: _Atom | None = None
        for atom in atoms:
            if last is not None:
                yield last
            last = atom
        if last is not None:
            yield replace(last, cut=_Cut.BLOCK)

    def _lines(self, text: str, at: int, budget: int, *, begin: int = 0) -> Iterator[_Atom]:
        """The words of lines, the last one of a line ending it."""
        while begin < len(text):
            newline = text.find("\n", begin)
            end = len(text) if newline < 0 else newline
            last: _Atom | None = None
            for atom in self._words(text, at, budget, begin=begin, end=end, prose=False):
                if last is not None:
                    yield last
                last = atom
            if last is not None:
                yield replace(last, cut=_Cut.LINE)
            begin = end + 1

    def _words(self, text: str, at: int, budget: int, *, begin: int = 0, end: int | None = None, prose: bool = True) -> Iterator[_Atom]:
        """The words of a text; in prose, a sentence ends where its mark is followed by anything but a small letter."""
        last: _Atom | None = None
        for match in _WORD.finditer(text, begin, len(text) if end is None else end):
            if last is not None:
                yield replace(last, cut=_Cut.LINE) if prose and _ends_sentence(text, last, at, match.start()) else last
            *others, last = self._pieces(text, match.start(), match.end(), at, budget, prose=prose)
            yield from others
        if last is not None:
            yield last

    def _pieces(self, text: str, start: int, end: int, at: int, budget: int, *, prose: bool) -> Iterator[_Atom]:
        """A word as one atom, or in pieces if it is longer than a word can be or than a chunk may be."""
        if end - start > _LONGEST_WORD:
            for begin in range(start, end, _LONGEST_WORD):
                yield from self._pieces(text, begin, min(begin + _LONGEST_WORD, end), at, budget, prose=prose)
            return
        weight = self._weigh_word(text[start:end])
        if weight > budget and end - start > 1:
            middle = (start + end) // 2
            yield from self._pieces(text, start, middle, at, budget, prose=prose)
            yield from self._pieces(text, middle, end, at, budget, prose=prose)
        else:
            yield _Atom(at + start, at + end, weight, _Cut.WORD, prose)

    def _weigh_word(self, word: str) -> int:
        weight = self._weights.get(word)
        if weight is None:
            weight = max(self._count(word), -(-len(word) // _CHARS_PER_TOKEN))
            if len(word) <= 32 and len(self._weights) < 200_000:
                self._weights[word] = weight
        return weight

    def _weight_exceeds(self, text: str, budget: int) -> bool:
        """Whether a text weighs more, found out without weighing all of it."""
        used = 0
        last: _Atom | None = None
        for atom in self._words(text, 0, budget):
            used += atom.weight + (_gap(last, atom) if last else 0)
            last = atom
            if used > budget:
                return True
        return False


def _gap(before: _Atom, after: _Atom) -> int:
    """What the white space between two atoms weighs: nothing, unless there is a lot of it."""
    return (after.start - before.end) // _CHARS_PER_TOKEN


def _weigh(atoms: list[_Atom]) -> int:
    return sum(atom.weight for atom in atoms) + sum(_gap(before, after) for before, after in pairwise(atoms))


def _best_cut(atoms: list[_Atom], budget: int, repeated: int) -> int:
    """How many atoms go into the chunk: to the last end of a block, else line, that leaves it half full; else all.

    Lines of code, lists and rows need not leave it half full: any of them is better than a cut inside one.
    """
    best: dict[_Cut, int] = {}
    used = 0
    for number, atom in enumerate(atoms, start=1):
        used += atom.weight
        if atom.cut is _Cut.BLOCK:
            best.pop(_Cut.LINE, None)
        if number > repeated and (used * 2 >= budget or (atom.cut is _Cut.LINE and not atom.prose)):
            best[atom.cut] = number
    return best.get(_Cut.BLOCK) or best.get(_Cut.LINE) or len(atoms)


def _ends_sentence(text: str, atom: _Atom, at: int, following: int) -> bool:
    """Whether the word `atom` of `text` ends a sentence, the next word beginning at `following`."""
    word = text[max(atom.start - at, atom.end - at - 16) : atom.end - at]
    return bool(_SENTENCE_END.search(word)) and not _ABBREVIATION.search(word) and not text[following].islower()


def _header_end(table: str) -> int:
    """Where the rows of a Markdown table begin: after the first line, and after the rule below it if there is one."""
    begin = len(table) - len(table.lstrip())
    first = table.find("\n", begin)
    if first < 0:
        return 0
    second = table.find("\n", first + 1)
    rule = table[first + 1 : second] if second > 0 else ""
    return second + 1 if "-" in rule and not rule.strip(" \t|:-") else first + 1
