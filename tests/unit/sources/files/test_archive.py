"""Pre-flight of Office files: each known bomb stops here, and honest files pass."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield.errors import DocumentBomb, DocumentCorrupt, DocumentEncrypted, DocumentTooManyPages
from shield.sources.files.archive import _place, check_office, entry_names
from shield.sources.files.sniff import Kind
from tests.peers import documents
from tests.unit.sources.files.limits import DEFAULT, limits

MiB = 1024 * 1024
SHEET = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s</sheetData>%s</worksheet>'


def zipped(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return out.getvalue()


def sheet(rows: bytes, after: bytes = b"", name: str = "xl/worksheets/sheet1.xml") -> bytes:
    return zipped((name, SHEET % (rows, after)))


@pytest.mark.parametrize(
    ("build", "kind", "pages"), [(documents.docx, Kind.DOCX, None), (documents.pptx, Kind.PPTX, 3), (documents.xlsx, Kind.XLSX, 2)]
)
def test_an_honest_file_passes_and_tells_its_pages(build: Callable[[], bytes], kind: Kind, pages: int | None) -> None:
    assert check_office(build(), kind, DEFAULT) == pages


class TestSizes:
    def test_a_large_xml_part_in_a_small_file_is_a_bomb(self) -> None:
        part = b"<w:document>" + b"<w:p/>" * (4 * MiB // 6) + b"</w:document>"
        with pytest.raises(DocumentBomb):
            check_office(zipped(("word/document.xml", part)), Kind.DOCX, limits(max_xml_bytes=2 * MiB, max_zip_ratio=10_000))

    def test_slides_are_bounded_too(self) -> None:
        with pytest.raises(DocumentBomb):
            check_office(zipped(("ppt/slides/slide1.xml", b"<a>" + b" " * (5 * MiB) + b"</a>")), Kind.PPTX, limits(max_xml_bytes=4 * MiB))

    def test_a_picture_may_not_unpack_to_two_hundred_times_its_size(self) -> None:
        with pytest.raises(DocumentBomb):
            check_office(zipped(("word/media/a.png", b"\0" * (8 * MiB))), Kind.DOCX, DEFAULT)

    def test_a_small_part_may_compress_as_well_as_it_likes(self) -> None:
        check_office(zipped(("word/blank.xml", b"<a>" + b" " * (MiB // 2) + b"</a>")), Kind.DOCX, DEFAULT)

    def test_all_parts_together_are_bounded(self) -> None:
        parts = [(f"word/media/{number}", bytes([number]) * 1000) for number in range(20)]
        with pytest.raises(DocumentBomb):
            check_office(zipped(*parts), Kind.DOCX, limits(max_zip_bytes=15_000))

    def test_a_lying_header_does_not_help(self) -> None:
        content = bytearray(zipped(("word/media/a", bytes(range(256)) * 40), compression=zipfile.ZIP_STORED))
        directory = content.rindex(b"PK\x01\x02")
        struct.pack_into("<L", content, directory + 24, 10)  # says: 10 bytes
        with pytest.raises(DocumentCorrupt):
            check_office(bytes(content), Kind.DOCX, DEFAULT)

    def test_too_many_entries_are_refused_before_the_directory_is_read(self) -> None:
        content = zipped(*((f"word/{number}", b"") for number in range(40)))
        with pytest.raises(DocumentBomb):
            entry_names(content, limits(max_zip_entries=39))


class TestNames:
    @pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "C:/x", "a\\b"])
    def test_a_name_that_leads_out_is_refused(self, name: str) -> None:
        content = zipped(("aaaaaaaaaa", b"x")).replace(b"aaaaaaaaaa", name.encode().ljust(10, b"x"))
        with pytest.raises(DocumentCorrupt):
            check_office(content, Kind.DOCX, DEFAULT)

    def test_two_entries_of_one_name_are_refused(self) -> None:
        content = zipped(("word/aaa.xml", b"<a/>"), ("word/aab.xml", b"<a/>")).replace(b"word/aab.xml", b"WORD/aaa.xml")
        with pytest.raises(DocumentCorrupt):
            check_office(content, Kind.DOCX, DEFAULT)

    def test_a_link_is_refused(self) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            entry = zipfile.ZipInfo("word/document.xml")
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "/etc/passwd")
        with pytest.raises(DocumentCorrupt):
            check_office(out.getvalue(), Kind.DOCX, DEFAULT)

    def test_an_encrypted_entry_is_named_as_such(self) -> None:
        content = bytearray(zipped(("word/document.xml", b"<a/>")))
        content[content.rindex(b"PK\x01\x02") + 8] |= 1
        with pytest.raises(DocumentEncrypted):
            check_office(bytes(content), Kind.DOCX, DEFAULT)

    def test_other_compressions_than_offices_own_are_refused(self) -> None:
        with pytest.raises(DocumentCorrupt):
            check_office(zipped(("word/a", b"x" * 100), compression=zipfile.ZIP_LZMA), Kind.DOCX, DEFAULT)


class TestXml:
    BOMB = b'<!DOCTYPE a [<!ENTITY b "%s">]><a>&b;</a>' % (b"x" * 100)

    @pytest.mark.parametrize("encode", [lambda xml: xml, lambda xml: xml.decode().encode("utf-16")])
    @pytest.mark.parametrize("name", ["word/document.xml", "word/_rels/document.xml.rels", "word/renamed.bin"])
    def test_a_part_with_a_dtd_is_refused_in_any_encoding_and_under_any_name(self, name: str, encode: Callable[[bytes], bytes]) -> None:
        with pytest.raises(DocumentBomb):
            check_office(zipped((name, encode(self.BOMB))), Kind.DOCX, DEFAULT)

    def test_deep_nesting_is_refused(self) -> None:
        with pytest.raises(DocumentBomb):
            check_office(zipped(("word/document.xml", b"<a>" * 300 + b"</a>" * 300)), Kind.DOCX, DEFAULT)

    def test_broken_xml_is_corrupt(self) -> None:
        with pytest.raises(DocumentCorrupt):
            check_office(zipped(("word/document.xml", b"<a><b></a>")), Kind.DOCX, DEFAULT)


class TestSheets:
    def test_one_cell_in_the_last_corner_is_harmless_until_another_opens_the_rectangle(self) -> None:
        far = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
        check_office(sheet(far), Kind.XLSX, DEFAULT)
        with pytest.raises(DocumentBomb):
            check_office(sheet(b'<row r="1"><c r="A1"><v>1</v></c></row>' + far), Kind.XLSX, DEFAULT)

    def test_a_workbook_with_a_far_cell_is_a_bomb(self) -> None:
        with pytest.raises(DocumentBomb):
            check_office(documents.xlsx(cell="XFD1048576"), Kind.XLSX, DEFAULT)

    def test_a_merge_over_the_whole_sheet_is_a_bomb(self) -> None:
        with pytest.raises(DocumentBomb):
            check_office(documents.xlsx(merge="A1:XFD20000"), Kind.XLSX, DEFAULT)

    def test_a_sheet_under_another_name_is_measured_all_the_same(self) -> None:
        with pytest.raises(DocumentBomb):
            check_office(sheet(b"", b'<mergeCells><mergeCell ref="A1:XFD20000"/></mergeCells>', name="xl/evil.dat"), Kind.XLSX, DEFAULT)

    def test_prefixed_elements_are_seen(self) -> None:
        xml = b'<x:worksheet xmlns:x="u"><x:mergeCells><x:mergeCell ref="A1:XFD20000"/></x:mergeCells></x:worksheet>'
        with pytest.raises(DocumentBomb):
            check_office(zipped(("xl/worksheets/s.xml", xml)), Kind.XLSX, DEFAULT)

    def test_formatted_but_empty_cells_far_away_do_no_harm(self) -> None:
        rows = b'<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576" s="3"/></row>'
        check_office(sheet(rows), Kind.XLSX, DEFAULT)

    def test_cells_without_references_are_counted_from_the_left(self) -> None:
        rows = b"<row>" + b"<c><v>1</v></c>" * 20 + b"</row>" + b"<row>" + b"<c><v>1</v></c>" * 20 + b"</row>"
        check_office(sheet(rows), Kind.XLSX, limits(max_cells=40))
        with pytest.raises(DocumentTooManyPages):
            check_office(sheet(rows), Kind.XLSX, limits(max_cells=39))

    def test_too_many_sheets_are_too_many_pages(self) -> None:
        with pytest.raises(DocumentTooManyPages):
            check_office(documents.xlsx(), Kind.XLSX, limits(max_pages=1))

    @pytest.mark.parametrize(
        ("reference", "place"), [("A1", (1, 1)), ("$b$3", (3, 2)), ("XFD1048576", (1048576, 16384)), ("A", None), ("", None)]
    )
    def test_references_are_read(self, reference: str, place: tuple[int, int] | None) -> None:
        assert _place(reference) == place


class TestDamage:
    def test_truncated_files_are_corrupt(self) -> None:
        content = documents.docx()
        for cut in (10, len(content) // 2, len(content) - 5):
            with pytest.raises(DocumentCorrupt):
                check_office(content[:cut], Kind.DOCX, DEFAULT)

    @settings(max_examples=80, deadline=None)
    @given(st.data())
    def test_flipped_bytes_pass_or_raise_a_typed_error(self, data: st.DataObject) -> None:
        content = bytearray(SMALL)
        for _ in range(data.draw(st.integers(1, 5))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        with suppress(DocumentBomb, DocumentCorrupt, DocumentEncrypted, DocumentTooManyPages):
            check_office(bytes(content), Kind.XLSX, DEFAULT)


SMALL = sheet(b'<row r="1"><c r="A1"><v>1</v></c></row>')
