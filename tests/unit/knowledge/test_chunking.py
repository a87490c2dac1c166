"""Chunks fit the model, follow the structure, keep their place, and lose nothing."""

from __future__ import annotations

import re
import time
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield.knowledge.chunking import chunk
from shield.knowledge.embedding.builtin import BuiltinEmbedder
from shield.knowledge.model import Chunk
from shield.sources.model import Block, BlockKind, Converted

H, P, L, T, C = BlockKind.HEADING, BlockKind.PARAGRAPH, BlockKind.LIST, BlockKind.TABLE, BlockKind.CODE


def words(text: str) -> int:
    """A counter for readable tests: one token a word."""
    return len(text.replace(">", " ").split())


@cache
def wordpieces() -> BuiltinEmbedder:
    return BuiltinEmbedder()


def a_document(*blocks: tuple[BlockKind, str] | tuple[BlockKind, str, int]) -> Converted:
    return Converted(tuple(Block(kind, text, level=rest[0] if rest else 0) for kind, text, *rest in blocks))


def sentence(number: int, length: int = 10) -> str:
    return " ".join([f"Begin{number}", *(f"w{number}x{i}" for i in range(length - 2)), f"end{number}."])


def texts(chunks: list[Chunk]) -> list[str]:
    return [piece.text for piece in chunks]


class TestStructure:
    def test_an_empty_document_has_no_chunks(self) -> None:
        assert chunk(a_document(), words) == []
        assert chunk(a_document((P, "  \n "), (H, " ", 1), (C, "")), words) == []

    def test_a_short_document_is_one_chunk_that_equals_its_text(self) -> None:
        document = a_document((P, "One."), (L, "- a\n- b"), (P, "Two."))
        (only,) = chunk(document, words)
        assert (only.text, only.start, only.end, only.ordinal, only.heading_path) == (document.text, 0, len(document.text), 0, ())

    def test_chunks_never_cross_a_heading_and_carry_their_path_outermost_first(self) -> None:
        document = a_document((H, "Guide", 1), (P, "Intro."), (H, "Install", 2), (P, "Run it."), (H, "Use", 2), (P, "Ask it."))
        assert [(c.heading_path, c.text) for c in chunk(document, words)] == [
            (("Guide",), "Intro."),
            (("Guide", "Install"), "Run it."),
            (("Guide", "Use"), "Ask it."),
        ]

    def test_a_heading_of_the_same_or_a_higher_level_ends_the_section(self) -> None:
        document = a_document((H, "A", 1), (H, "B", 3), (P, "one"), (H, "C", 2), (P, "two"), (H, "D", 1), (P, "three"))
        assert [c.heading_path for c in chunk(document, words)] == [("A", "B"), ("A", "C"), ("D",)]

    def test_a_heading_that_nothing_follows_is_a_chunk_of_its_own_in_its_place(self) -> None:
        document = a_document((H, "A", 1), (H, "Lonely", 2), (H, "B", 2), (P, "text"), (H, "Last", 1))
        assert [(c.heading_path, c.text) for c in chunk(document, words)] == [
            (("A",), "Lonely"),
            (("A", "B"), "text"),
            ((), "Last"),
        ]

    def test_a_long_heading_path_leaves_half_of_the_budget_to_the_text_and_is_not_lost(self) -> None:
        outer, inner = " ".join(f"o{i}" for i in range(30)), " ".join(f"i{i}" for i in range(12))
        chunks = chunk(a_document((H, outer, 1), (H, inner, 2), (P, sentence(1, 20))), words, limit=40)
        assert chunks[-1].heading_path == (inner,)
        assert chunks[-1].text == sentence(1, 20)
        assert outer in texts(chunks)

    def test_a_heading_longer_than_half_of_the_budget_is_cut_at_a_word(self) -> None:
        name = " ".join(f"h{i}" for i in range(50))
        chunks = chunk(a_document((H, name, 1), (P, "text")), words, limit=40)
        body = next(c for c in chunks if c.text == "text")
        assert name.startswith(body.heading_path[0] + " ")
        assert words(body.embedded_text) <= 40

    def test_the_page_is_that_of_the_first_character(self) -> None:
        blocks = (Block(P, sentence(1), page=1), Block(P, sentence(2), page=2), Block(P, sentence(3), page=3))
        assert [c.page for c in chunk(Converted(blocks), words, limit=20)] == [1, 3]


class TestProse:
    def test_a_paragraph_that_does_not_fit_goes_to_the_next_chunk_whole(self) -> None:
        chunks = chunk(a_document((P, sentence(1, 25)), (P, sentence(2, 25))), words, limit=40)
        assert texts(chunks) == [sentence(1, 25), sentence(2, 25)]

    def test_a_long_paragraph_is_cut_between_sentences_and_overlaps_by_whole_ones(self) -> None:
        sentences = [sentence(i) for i in range(6)]
        chunks = chunk(a_document((P, " ".join(sentences))), words, limit=40, overlap=10)
        assert texts(chunks) == [" ".join(sentences[0:4]), " ".join(sentences[3:6])]

    def test_a_long_sentence_is_cut_between_words_and_overlaps_by_words(self) -> None:
        text = sentence(1, 100)
        chunks = chunk(a_document((P, text)), words, limit=40, overlap=8)
        assert all(words(c.text) <= 40 for c in chunks)
        for before, after in pairwise(chunks):
            assert before.text.split()[-8:] == after.text.split()[:8]

    def test_nothing_overlaps_from_one_section_into_the_next(self) -> None:
        chunks = chunk(a_document((H, "A", 1), (P, sentence(1, 60)), (H, "B", 1), (P, sentence(2, 60))), words, limit=40, overlap=8)
        assert all("end1" not in c.text and "w1x" not in c.text for c in chunks if c.heading_path == ("B",))

    @pytest.mark.parametrize("mark", ["Dr. Smith", "e.g. Pumps", "J. Doe", "version 2.5 of it", "www.example.org. and"])
    def test_a_full_stop_that_ends_no_sentence_does_not_cut(self, mark: str) -> None:
        first = f"{sentence(1, 14)} {mark.split(maxsplit=1)[0]}"
        text = f"{first} {' '.join(mark.split()[1:])} {sentence(2, 14)}"
        chunks = chunk(a_document((P, text)), words, limit=20, overlap=0)
        assert not any(c.text.endswith(first) for c in chunks)

    def test_chinese_is_cut_at_its_own_full_stops(self) -> None:
        text = "今天天气很好。" * 60
        chunks = chunk(a_document((P, text)), wordpieces().count_tokens)
        assert len(chunks) > 1
        assert all(c.text.endswith("。") for c in chunks)


class TestTablesListsAndCode:
    def test_a_table_that_fits_stays_whole(self) -> None:
        table = "| a | b |\n|---|---|\n| 1 | 2 |"
        chunks = chunk(a_document((P, sentence(1, 30)), (T, table), (P, "End.")), words, limit=40)
        assert sum(table in c.text for c in chunks) == 1

    def test_a_long_table_is_cut_between_rows_and_repeats_its_header(self) -> None:
        header = "| name | value |\n|---|---|"
        rows = [f"| n{i} | v{i} |" for i in range(20)]
        document = a_document((P, "Before."), (T, "\n".join([header, *rows])), (P, "After."))
        chunks = chunk(document, words, limit=40)
        tables = [c for c in chunks if "| n" in c.text]
        assert len(tables) > 2
        assert all(c.text.startswith(header) for c in tables)
        assert [row for c in tables for row in c.text.splitlines()[2:]] == rows
        for c in tables[1:]:
            assert c.text == f"{header}\n{document.text[c.start : c.end]}"
        assert tables[0].text == document.text[tables[0].start : tables[0].end]

    def test_a_row_too_long_for_a_chunk_is_cut_and_keeps_its_header(self) -> None:
        cells = " ".join(f"c{i}" for i in range(90))
        chunks = chunk(a_document((T, f"| head |\n|---|\n| {cells} |")), words, limit=40)
        assert len(chunks) > 2
        assert all(c.text.startswith("| head |") and words(c.text) <= 40 for c in chunks)

    def test_a_header_too_long_to_repeat_is_cut_like_a_row(self) -> None:
        header = "| " + " | ".join(f"h{i}" for i in range(60)) + " |"
        document = a_document((T, f"{header}\n|---|\n| 1 | 2 |"))
        for c in chunk(document, words, limit=40):
            assert c.text == document.text[c.start : c.end]
            assert words(c.text) <= 40

    @pytest.mark.parametrize("kind", [C, L])
    def test_code_and_lists_are_cut_between_lines_without_overlap(self, kind: BlockKind) -> None:
        lines = [f"line {i} has five words" for i in range(30)]
        chunks = chunk(a_document((kind, "\n".join(lines))), words, limit=40)
        assert [line for c in chunks for line in c.text.splitlines()] == lines


class TestHostileInput:
    @pytest.mark.parametrize("text", ["x" * 1_000_000, "1," * 100_000, "。" * 100_000, "字" * 50_000, "a." * 100_000], ids=lambda t: t[:2])
    def test_text_without_a_space_is_cut_into_pieces_in_time(self, text: str) -> None:
        begin = time.monotonic()
        chunks = chunk(a_document((P, text)), wordpieces().count_tokens)
        assert time.monotonic() - begin < 20
        assert chunks[0].start == 0
        assert chunks[-1].end == len(text)
        assert all(after.start <= before.end for before, after in pairwise(chunks))
        assert max(len(c.text) for c in chunks) < 5000

    def test_a_megabyte_of_white_space_is_no_chunk(self) -> None:
        chunks = chunk(a_document((C, "a" + " " * 1_000_000 + "b")), words)
        assert texts(chunks) == ["a", "b"]

    def test_a_huge_heading_of_one_word_does_not_fill_the_paths(self) -> None:
        chunks = chunk(a_document((H, "x" * 500_000, 1), (P, "text")), wordpieces().count_tokens)
        assert sum(len(c.embedded_text) for c in chunks) < 650_000  # the overlap of prose counts

    @pytest.mark.parametrize("rule", ["-" * 500_000 + "x", "|" * 500_000, "- " * 250_000 + "x"], ids=["dashes", "bars", "spaced"])
    def test_a_table_rule_without_an_end_is_read_in_time(self, rule: str) -> None:
        begin = time.monotonic()
        assert chunk(a_document((T, f"| a |\n{rule}\n| b |")), words)
        assert time.monotonic() - begin < 10


def _kinds() -> st.SearchStrategy[tuple[BlockKind, str, int]]:
    word = st.one_of(
        st.sampled_from(["the", "Pump", "fails.", "E4711!", "naïve", "a|b", "--", "of", "今天。", "end.", "Dr.", "\x1c", "\u200b"]),
        st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12),
    )
    space = st.sampled_from([" ", "  ", "\n", "\n\n"])
    text = st.lists(st.tuples(word, space), max_size=60).map(lambda pairs: "".join(w + s for w, s in pairs))
    return st.tuples(st.sampled_from(list(BlockKind)), text, st.integers(0, 7))


@settings(max_examples=150, deadline=None)
@given(st.lists(_kinds(), max_size=8), st.integers(24, 80), st.integers(0, 12))
def test_every_word_is_in_some_chunk_and_every_chunk_fits_its_place(
    blocks: list[tuple[BlockKind, str, int]], limit: int, overlap: int
) -> None:
    count = wordpieces().count_tokens
    document = a_document(*blocks)
    chunks = chunk(document, count, limit, overlap)
    assert chunks == chunk(document, count, limit, overlap)
    assert [c.ordinal for c in chunks] == list(range(len(chunks)))
    kept = {word for c in chunks for word in re.split(r"[\s。]+", c.embedded_text)}
    assert set(re.split(r"[\s。]+", document.text)) - kept - {""} == set()
    for c in chunks:
        assert c.text.strip()
        assert 0 <= c.start < c.end <= len(document.text)
        assert c.text.endswith(document.text[c.start : c.end])
        assert c.tokens == count(c.embedded_text)
        assert c.tokens <= limit or " " not in c.text.strip()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([P, L, C]), st.text(max_size=300)), max_size=6))
def test_outside_tables_a_chunk_is_a_slice_of_the_text_and_slices_cover_it(blocks: list[tuple[BlockKind, str]]) -> None:
    document = a_document(*blocks)
    chunks = chunk(document, words, limit=24, overlap=4)
    covered = set()
    for c in chunks:
        assert c.text == document.text[c.start : c.end]
        covered |= set(range(c.start, c.end))
    assert all(i in covered for i, character in enumerate(document.text) if not character.isspace())
