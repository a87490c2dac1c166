"""Pre-flight of Office files: everything that could make a small archive expensive is counted before Docling sees it.

Headers lie, so sizes are counted while every entry is unpacked, in 64 KiB pieces that are not kept. Every XML part is run
through expat with a handler that refuses DTDs (so there are no entities), bounds the nesting, and, in workbooks, measures
what Docling will walk: the rectangle around a sheet's values, and the merged ranges. Any entry that looks like XML is
treated so, whatever its name: a workbook may name its sheets as it likes. Runs in the converting child, under its limits.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from shield.errors import DocumentBomb, DocumentCorrupt, DocumentEncrypted, DocumentTooManyPages
from shield.sources.files.limits import Limits
from shield.sources.files.sniff import Kind

PIECE = 64 * 1024
SMALL = 1024 * 1024
"""Entries up to this size may compress as well as they like: blank pages and empty styles do."""
MAX_ATTRIBUTES = 1000

_XML = (".xml", ".rels", ".vml")
_SLIDE = re.compile(r"ppt/slides/slide\d+\.xml")
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
_REFERENCE = re.compile(r"\$?([A-Za-z]{1,3})\$?([0-9]{1,7})")


def entry_names(content: bytes, limits: Limits) -> list[str]:
    """The names in the archive's directory, after checking that it is not absurdly long."""
    return [entry.filename for entry in _open(content, limits).infolist()]


def check_office(content: bytes, kind: Kind, limits: Limits) -> int | None:
    """Refuse a hostile or damaged Office file; returns the number of slides or sheets, if it has such.

    Raises:
        DocumentBomb, DocumentTooManyPages, DocumentEncrypted, DocumentCorrupt: see their sentences.
    """
    with _open(content, limits) as archive:
        entries = archive.infolist()
        _check_names(entries)
        slides = sum(1 for entry in entries if _SLIDE.fullmatch(entry.filename))
        sheets = sum(1 for entry in entries if _SHEET.fullmatch(entry.filename))
        if max(slides, sheets) > limits.max_pages:
            raise DocumentTooManyPages(limit=limits.max_pages)
        left = limits.max_zip_bytes
        cells = Cells(limits)
        for entry in entries:
            left -= _check_entry(archive, entry, left, limits, cells if kind is Kind.XLSX else None)
    return {Kind.PPTX: slides, Kind.XLSX: sheets}.get(kind)


def _open(content: bytes, limits: Limits) -> zipfile.ZipFile:
    # Counted before `zipfile` builds an object for each; the signature rarely occurs in honest data.
    if content.count(b"PK\x01\x02") > limits.max_zip_entries:
        raise DocumentBomb("The archive has more entries than allowed.", limit=limits.max_zip_entries)
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    # RuntimeError: encrypted, or compressed or laid out in a way that `zipfile` does not know.
    except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, OverflowError, RuntimeError, OSError) as error:
        raise DocumentCorrupt from error


def _check_names(entries: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        if "\\" in name or "\0" in name or name.startswith("/") or ".." in name.split("/") or re.match(r"[A-Za-z]:", name):
            raise DocumentCorrupt("The archive has an entry whose name leads out of it.")
        if name.casefold() in seen:
            raise DocumentCorrupt("The archive has two entries of one name.")
        seen.add(name.casefold())
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise DocumentCorrupt("The archive holds a link.")
        if entry.flag_bits & 0x1:
            raise DocumentEncrypted
        if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise DocumentCorrupt("The archive is compressed in a way that Office files are not.")


def _check_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, left: int, limits: Limits, cells: Cells | None) -> int:
    """Unpack one entry without keeping it; returns its true size."""
    scan: XmlScan | None = None
    size = 0
    for piece in _pieces(archive, entry):
        if size == 0 and (entry.filename.lower().endswith(_XML) or _starts_like_xml(piece)):
            scan = XmlScan(limits, cells)
        size += len(piece)
        cap = left if scan is None else min(left, limits.max_xml_bytes)
        if size > cap or (size > SMALL and size > limits.max_zip_ratio * max(entry.compress_size, 1)):
            raise DocumentBomb
        if scan is not None:
            scan.feed(piece)
    if scan is not None:
        scan.close()
    return size


def _starts_like_xml(piece: bytes) -> bool:
    return piece[:64].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xfe\xff \t\r\n").startswith((b"<?xml", b"<!DOCTYPE", b"<worksheet", b"<x:"))


def _pieces(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(entry) as stream:
            while piece := stream.read(PIECE):
                yield piece
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError) as error:
        raise DocumentCorrupt from error


class Cells:
    """What a workbook's sheets span together; Docling walks rectangles, not cells."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.max_cells
        self.filled = 0
        self.spanned = 0

    def fill(self) -> None:
        """Count one cell that is there."""
        self.filled += 1
        if self.filled > self._limit:
            raise DocumentTooManyPages("The workbook has more cells than allowed.", limit=self._limit)

    def span(self, cells: int) -> None:
        """Count a sheet's rectangle, or a merged range."""
        self.spanned += cells
        if self.spanned > self._limit:
            raise DocumentBomb("A sheet spans more cells than allowed; remove stray cells far from the data.", limit=self._limit)


class XmlScan:
    """One XML part on its way through expat."""

    def __init__(self, limits: Limits, cells: Cells | None) -> None:
        self._limits = limits
        self._cells = cells
        self._depth = 0
        self._row = 0
        self._cell = (0, 0)
        self._in_row = False
        self._extent: tuple[int, int, int, int] | None = None
        """First and last row, first and last column that hold a value."""
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def feed(self, piece: bytes) -> None:
        """Parse on."""
        self._parse(piece, last=False)

    def close(self) -> None:
        """Parse to the end, and count the sheet's rectangle."""
        self._parse(b"", last=True)
        if self._cells is not None and self._extent is not None:
            top, bottom, left, right = self._extent
            self._cells.span((bottom - top + 1) * (right - left + 1))

    def _parse(self, piece: bytes, *, last: bool) -> None:
        try:
            self._parser.Parse(piece, last)
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise DocumentCorrupt from error

    def _doctype(self, *_: Any) -> None:
        raise DocumentBomb("The file declares XML entities, which honest Office files do not.")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > self._limits.max_html_depth or len(attributes) > MAX_ATTRIBUTES:
            raise DocumentBomb("The file's elements are nested deeper than allowed.", limit=self._limits.max_html_depth)
        if self._cells is not None:
            self._measure(self._cells, name.rpartition(":")[2], attributes)

    def _measure(self, cells: Cells, name: str, attributes: dict[str, str]) -> None:
        if name == "row":
            self._row = _number(attributes.get("r"), self._row + 1)
            self._in_row, self._cell = True, (self._row, 0)
        elif name == "c" and self._in_row:
            cells.fill()
            self._cell = _place(attributes.get("r")) or (self._row, self._cell[1] + 1)
        elif name in {"v", "is", "f"} and self._in_row:
            self._reach(*self._cell)
        elif name == "mergeCell":
            first, _, last = attributes.get("ref", "").partition(":")
            start = _place(first)
            end = _place(last) or start
            if start is not None and end is not None:
                cells.span((abs(end[0] - start[0]) + 1) * (abs(end[1] - start[1]) + 1))
                self._reach(*start)
                self._reach(*end)

    def _end(self, name: str) -> None:
        self._depth -= 1
        if name.rpartition(":")[2] == "row":
            self._in_row = False

    def _reach(self, row: int, column: int) -> None:
        top, bottom, left, right = self._extent or (row, row, column, column)
        self._extent = (min(top, row), max(bottom, row), min(left, column), max(right, column))


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 7 else default


def _place(reference: str | None) -> tuple[int, int] | None:
    """Row and column of a reference such as `XFD1048576`."""
    found = _REFERENCE.fullmatch(reference or "")
    if found is None:
        return None
    column = 0
    for letter in found[1].upper():
        column = column * 26 + ord(letter) - 64
    return int(found[2]), column
