"""Encodings, plain text, CSV, front matter."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.errors import DocumentCorrupt, DocumentEncodingUnknown, DocumentTooManyPages
from shield.sources.files.text import csv_blocks, decode, front_matter, markdown_table, storable, text_blocks
from shield.sources.model import BlockKind
from tests.unit.sources.files.limits import DEFAULT, limits

WRITING = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=200)


class TestDecode:
    @given(WRITING)
    def test_utf8_comes_back(self, text: str) -> None:
        assert decode(text.encode()) == text.removeprefix("\ufeff")

    @given(WRITING, st.sampled_from(["utf-16", "utf-8-sig", "utf-32"]))
    def test_a_byte_order_mark_is_believed_over_the_sender(self, text: str, encoding: str) -> None:
        assert decode(text.encode(encoding), "latin-1") == text.removeprefix("\ufeff" if encoding == "utf-8-sig" else "")

    def test_windows_text_is_recognised(self) -> None:
        assert decode("Größe “quoted” 5 €\r\n".encode("cp1252")) == "Größe “quoted” 5 €\n"

    def test_a_declared_charset_is_used(self) -> None:
        assert decode("Приветствие".encode("koi8-r"), "koi8-r") == "Приветствие"

    def test_a_wrong_charset_is_not(self) -> None:
        assert decode("Größe".encode(), "ascii") == "Größe"
        assert decode(b"plain", "no-such-charset") == "plain"

    @pytest.mark.parametrize(
        "content",
        [b"a\0b", bytes(range(256)), b"\x81\x8d words", "Приветствие всем".encode("cp1251"), b"\x01\x02\x03\x04\x05 words", b"\xff\xfea"],
    )
    def test_binary_and_unknown_encodings_are_refused(self, content: bytes) -> None:
        with pytest.raises(DocumentEncodingUnknown):
            decode(content)

    @given(st.binary(max_size=300), st.none() | st.text(max_size=12))
    def test_any_bytes_decode_or_raise_one_typed_error(self, content: bytes, charset: str | None) -> None:
        with suppress(DocumentEncodingUnknown):
            assert "\r" not in decode(content, charset)


@given(st.text(st.characters(), max_size=200))
def test_storable_text_can_be_stored(text: str) -> None:
    clean = storable(text)
    assert "\0" not in clean
    clean.encode("utf-8")
    assert storable(clean) == clean


class TestPlainText:
    def test_paragraphs_are_parted_by_blank_lines_and_nothing_is_markup(self) -> None:
        blocks = list(text_blocks("# no heading\nsecond line\n \n\n  - indented stays\n\n\n"))
        assert [(block.kind, block.text) for block in blocks] == [
            (BlockKind.PARAGRAPH, "# no heading\nsecond line"),
            (BlockKind.PARAGRAPH, "  - indented stays"),
        ]


class TestCsv:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    def test_the_delimiter_is_found(self, delimiter: str) -> None:
        text = "\n".join(delimiter.join(row) for row in (["Part", "Code", "Price"], ["Rotor", "E4711", "12.50"]))
        assert [block.text for block in csv_blocks(text, DEFAULT)] == [
            "| Part | Code | Price |\n| --- | --- | --- |\n| Rotor | E4711 | 12.50 |"
        ]

    def test_quotes_line_breaks_and_pipes_survive(self) -> None:
        (block,) = csv_blocks('a,b\n"two\nlines, one cell",x|y\nshort\n', DEFAULT)
        assert block.text.split("\n")[2:] == ["| two lines, one cell | x\\|y |", "| short |  |"]

    def test_rows_and_cells_are_bounded(self) -> None:
        with pytest.raises(DocumentTooManyPages):
            list(csv_blocks("a\n" * 11, limits(max_csv_rows=10)))
        with pytest.raises(DocumentTooManyPages):
            list(csv_blocks("a,b,c\n" * 4, limits(max_cells=11)))

    def test_one_long_row_does_not_widen_all_others(self) -> None:
        with pytest.raises(DocumentTooManyPages):
            list(csv_blocks("a\n" * 1000 + "x" + "," * 900, limits(max_cells=5000)))

    def test_a_field_without_end_is_refused(self) -> None:
        with pytest.raises(DocumentCorrupt):
            list(csv_blocks('"' + "x" * 1_100_000, DEFAULT))

    def test_an_empty_table_has_no_block(self) -> None:
        assert list(csv_blocks("\n , \n", DEFAULT)) == []

    @given(st.lists(st.lists(st.text(max_size=8), min_size=1, max_size=4), min_size=1, max_size=5))
    def test_a_markdown_table_has_a_line_a_row(self, rows: list[list[str]]) -> None:
        assert len(markdown_table(rows, DEFAULT).split("\n")) == len(rows) + 1


class TestFrontMatter:
    def test_its_title_is_kept_and_it_is_taken_off(self) -> None:
        assert front_matter("---\ntags: [a]\ntitle: 'The name'\n---\n# Head\n") == ("The name", "# Head\n")

    def test_a_rule_is_no_front_matter(self) -> None:
        text = "---\nnever closed\n# Head\n"
        assert front_matter(text) == ("", text)
