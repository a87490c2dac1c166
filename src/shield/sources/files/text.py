"""Plain text, CSV, and what all text formats need first: their encoding.

Text is UTF-8, or UTF-16 with a byte-order mark, or, if it decodes without gaps and looks like writing, Windows-1252 (a
superset of Latin-1). Anything else is refused rather than stored as noise.
"""

from __future__ import annotations

import codecs
import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator

from shield.errors import DocumentCorrupt, DocumentEncodingUnknown, DocumentTooManyPages
from shield.sources.files.limits import Limits
from shield.sources.model import Block, BlockKind

MAX_FIELD = 1024 * 1024
"""Characters of a CSV field."""
DELIMITERS = ",;\t|"

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_UNSTORABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(content: bytes, charset: str | None = None) -> str:
    """The text of a file, with Unix line ends; a byte-order mark beats `charset`, the sender's claim.

    Raises:
        DocumentEncodingUnknown: it is binary, or in an encoding that cannot be told.
    """
    for bom, name in _BOMS:
        if content.startswith(bom):
            return _lines(_try(content, name))
    if b"\0" in content:
        raise DocumentEncodingUnknown
    if charset and charset.lower() not in {"utf-8", "utf8"}:
        try:
            return _lines(_try(content, charset))
        except DocumentEncodingUnknown:
            pass  # a wrong label is common; the bytes decide
    try:
        return _lines(_try(content, "utf-8"))
    except DocumentEncodingUnknown:
        text = _try(content, "cp1252")
        strange = sum(1 for c in text if ord(c) > 127 and not (c.isalpha() or unicodedata.category(c)[0] in "PSZ"))
        letters = sum(1 for c in text if ord(c) > 127)
        if strange or letters > 0.4 * len(text):
            raise DocumentEncodingUnknown from None
        return _lines(text)


def storable(text: str) -> str:
    """Text without what PostgreSQL, JSON or a terminal cannot take: NUL and other controls, lone surrogates."""
    return _UNSTORABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def front_matter(text: str) -> tuple[str, str]:
    """Take YAML front matter off Markdown: its `title`, and the rest."""
    found = _FRONT_MATTER.match(text)
    if found is None:
        return "", text
    title = _FRONT_TITLE.search(found[1])
    return (title[1].strip("\"'") if title else ""), text[found.end() :]


def text_blocks(text: str) -> Iterator[Block]:
    """Paragraphs, parted by blank lines; nothing in plain text is markup."""
    for paragraph in re.split(r"\n[ \t\f]*\n", storable(text.replace("\f", "\n\n"))):
        stripped = paragraph.strip("\n").rstrip()
        if stripped.strip():
            yield Block(BlockKind.PARAGRAPH, stripped)


def csv_blocks(text: str, limits: Limits) -> Iterator[Block]:
    """The file as one table whose header is its first row.

    Raises:
        DocumentTooManyPages: more rows or cells than allowed.
        DocumentCorrupt: it is no CSV.
    """
    csv.field_size_limit(MAX_FIELD)
    rows: list[list[str]] = []
    cells = 0
    try:
        for row in csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(text)):
            if any(cell.strip() for cell in row):
                rows.append(row)
                cells += len(row)
            if len(rows) > limits.max_csv_rows or cells > limits.max_cells:
                raise DocumentTooManyPages("The table has more rows or cells than allowed.", limit=limits.max_csv_rows)
    except csv.Error as error:
        raise DocumentCorrupt from error
    if rows:
        yield Block(BlockKind.TABLE, markdown_table(rows, limits))


def markdown_table(rows: Iterable[Iterable[str]], limits: Limits) -> str:
    """Rows as a Markdown table; the first one is the header.

    Raises:
        DocumentTooManyPages: one long row would blow all others up.
    """
    cleaned = [[_cell(cell) for cell in row] for row in rows]
    width = max(map(len, cleaned))
    if width * len(cleaned) > limits.max_cells:
        raise DocumentTooManyPages("The table has more cells than allowed.", limit=limits.max_cells)
    lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in cleaned]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def _cell(text: str) -> str:
    return " ".join(storable(text).split()).replace("|", "\\|")


def _delimiter(text: str) -> str:
    """The delimiter that splits the first lines most, and most evenly."""
    lines = [line for line in text[:65536].splitlines()[:20] if line.strip()]
    if not lines:
        return ","

    def score(delimiter: str) -> tuple[int, int]:
        counts = [line.count(delimiter) for line in lines]
        return min(counts), sum(counts)

    return max(DELIMITERS, key=score)


def _try(content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except (ValueError, LookupError) as error:
        raise DocumentEncodingUnknown from error
    if len(_CONTROLS.findall(text[:65536])) > len(text[:65536]) // 200:
        raise DocumentEncodingUnknown
    return text


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
