"""Docling's documents as blocks: reading order, headings with levels, pages, tables, lists, code.

Docling keeps what surrounds the content (running headers, navigation, hidden sheets) in layers of their own, which are left
out; speaker notes are kept. Text is taken plainly: no Markdown escapes, no entities.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from shield.errors import DocumentBomb, DocumentCorrupt
from shield.sources.files.limits import Limits
from shield.sources.files.sniff import Kind
from shield.sources.files.text import markdown_table
from shield.sources.model import Block, BlockKind

MARGIN = 0.12
"""Share of a PDF page's height, at top and bottom, where text that repeats from page to page is a running header."""
REPEATS = 3
"""On how many pages it must stand."""

_LISTS = frozenset({"list", "ordered_list"})
_OBJECTS = frozenset({"table", "picture"})
_BEFORE = re.compile(r" (?=[,.;:!?)\]}%])")
_AFTER = re.compile(r"(?<=[(\[{]) ")
_LEADERS = re.compile(r"(?:\s?\.){5,}\s?")


@dataclass(frozen=True)
class Result:
    """What a conversion found."""

    blocks: list[Block]
    pages: int | None
    warnings: tuple[str, ...] = ()


def build_converter(*, warm: bool = False) -> Any:
    """One Docling converter for all formats that go through it; `warm` loads what the first conversion would load."""
    from docling.datamodel.base_models import InputFormat
    from docling.document_converter import DocumentConverter

    from shield.sources.files.pdf import pdf_option

    kinds = (Kind.PDF, Kind.DOCX, Kind.PPTX, Kind.XLSX, Kind.HTML, Kind.MD)
    formats = [InputFormat(kind) for kind in kinds]
    converter = DocumentConverter(allowed_formats=formats, format_options={InputFormat.PDF: pdf_option()})
    if warm:
        from lxml import html  # noqa: F401

        for format_ in formats:
            converter.initialize_pipeline(format_)
    return converter


def convert(converter: Any, content: bytes, kind: Kind, limits: Limits) -> Result:
    """Run Docling on a file that passed its pre-flight.

    Raises:
        DocumentCorrupt: Docling cannot read it.
        DocumentBomb: it is nested too deeply.
        MemoryError: it needs more than it may take.
    """
    from docling.datamodel.base_models import ConversionStatus, DocumentStream
    from docling.exceptions import ConversionError

    try:
        # The name is ours: Docling picks its reader by it.
        result = converter.convert(DocumentStream(name=f"document.{kind}", stream=io.BytesIO(content)))
    except (ConversionError, RuntimeError) as error:  # pipelines wrap whatever happens in a RuntimeError
        causes = list(_causes(error))
        if any(isinstance(cause, MemoryError) for cause in causes):
            raise MemoryError from error
        if any(isinstance(cause, RecursionError) for cause in causes):
            raise DocumentBomb from error
        if isinstance(error, ConversionError):
            raise DocumentCorrupt from error
        raise
    failed = sorted({item.page_no for item in result.errors if item.page_no})
    warnings = tuple(f"page {number} could not be read" for number in failed[:20])
    if result.status is not ConversionStatus.SUCCESS and not failed:
        warnings = ("parts of the file could not be read",)
    pages = len(result.document.pages) if kind in {Kind.PDF, Kind.PPTX, Kind.XLSX} else None
    return Result(list(blocks_of(result.document, kind, limits)), pages or None, warnings)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 20:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


def blocks_of(document: Any, kind: Kind, limits: Limits) -> Iterator[Block]:
    """The blocks of a Docling document."""
    walk = _Walk(document, limits, _running(document) if kind is Kind.PDF else frozenset())
    pending: Block | None = None
    for block in walk.of(document.body):
        if pending and pending.kind is block.kind is BlockKind.CODE and kind is Kind.PDF and pending.page == block.page:
            pending = replace(pending, text=f"{pending.text}\n{block.text}")  # a PDF's listing comes line by line
            continue
        if pending:
            yield pending
        pending = block
    if pending:
        yield pending


class _Walk:
    """Goes through the tree in reading order."""

    def __init__(self, document: Any, limits: Limits, skipped: frozenset[str]) -> None:
        self._document = document
        self._limits = limits
        self._skipped = skipped
        self._page: int | None = None
        self._below_title = 1 if any(text.label == "title" and _in_body(text) for text in document.texts) else 0

    def of(self, parent: Any) -> Iterator[Block]:
        for reference in parent.children:
            item = reference.resolve(self._document)
            if not _in_body(item) or item.self_ref in self._skipped:
                continue
            self._page = _page(item) or self._page
            yield from self._item(item)

    def _item(self, item: Any) -> Iterator[Block]:
        label = _label(item)
        if label in _LISTS:
            self._page = next((page for child in self._items(item) if (page := _page(child))), self._page)
            yield from self._block(BlockKind.LIST, "\n".join(self._list(item)))
            yield from self._beside(item)
        elif label == "inline":
            yield from self._block(BlockKind.PARAGRAPH, self._inline(item))
        elif label == "table":
            yield from self._table(item)
        elif label == "picture":
            yield from self._picture(item)
        elif label == "sheet":
            self._page = next((page for child in self._items(item) if (page := _page(child))), self._page)
            yield from self._block(BlockKind.HEADING, item.name, level=1)
            yield from self.of(item)
        else:
            yield from self._text(item, label)
            yield from self.of(item)

    def _text(self, item: Any, label: str) -> Iterator[Block]:
        text = getattr(item, "text", "") or ""
        if label == "title":
            yield from self._block(BlockKind.HEADING, _folded(text), level=1)
        elif label == "section_header":
            yield from self._block(BlockKind.HEADING, _folded(text), level=min(item.level + self._below_title, 6))
        elif label == "code":
            yield from self._block(BlockKind.CODE, text.strip("\n").rstrip())
        elif label == "list_item":  # outside of any list
            yield from self._block(BlockKind.LIST, f"- {_folded(text)}" if text.strip() else "")
        else:
            yield from self._block(BlockKind.PARAGRAPH, text.strip())

    def _block(self, kind: BlockKind, text: str, *, level: int = 0) -> Iterator[Block]:
        if text.strip():
            yield Block(kind, _LEADERS.sub(" … ", text) if kind is not BlockKind.CODE else text, level, self._page)

    def _items(self, parent: Any) -> list[Any]:
        return [child for child in (ref.resolve(self._document) for ref in parent.children) if _in_body(child)]

    def _inline(self, item: Any) -> str:
        """An item's text, formatted parts included, without the lists below it."""
        parts = [_folded(getattr(item, "text", "") or "")]
        parts += [self._inline(child) for child in self._items(item) if _label(child) not in _LISTS | _OBJECTS]
        return _AFTER.sub("", _BEFORE.sub("", " ".join(part for part in parts if part)))

    def _list(self, group: Any, indent: str = "") -> Iterator[str]:
        for item in self._items(group):
            if _label(item) in _LISTS:
                yield from self._list(item, indent + "  ")
                continue
            marker = getattr(item, "marker", "") if getattr(item, "enumerated", False) else ""
            if text := self._inline(item):
                yield f"{indent}{marker or '-'} {text}"
            for child in self._items(item):
                if _label(child) in _LISTS:
                    yield from self._list(child, indent + "  ")

    def _beside(self, group: Any) -> Iterator[Block]:
        """Tables and pictures that Docling hangs below list items."""
        for item in self._items(group):
            if _label(item) in _OBJECTS:
                yield from self._item(item)
            else:
                yield from self._beside(item)

    def _table(self, item: Any) -> Iterator[Block]:
        yield from self._captions(item)
        yield from self._grid(item.data)

    def _picture(self, item: Any) -> Iterator[Block]:
        yield from self._captions(item)
        chart = getattr(getattr(item, "meta", None), "tabular_chart", None)
        if chart is not None:
            yield from self._grid(chart.chart_data)
        captions = {reference.cref for reference in item.captions}
        for child in self._items(item):
            if child.self_ref not in captions:
                yield from self._item(child)

    def _captions(self, item: Any) -> Iterator[Block]:
        for reference in item.captions:
            yield from self._block(BlockKind.PARAGRAPH, self._inline(reference.resolve(self._document)))

    def _grid(self, data: Any) -> Iterator[Block]:
        rows = [[cell.text for cell in row] for row in data.grid]
        rows = [row for row in rows if any(cell.strip() for cell in row)]
        if rows and max(map(len, rows)) == 1:
            yield from self._block(BlockKind.PARAGRAPH, "\n".join(_folded(row[0]) for row in rows))
        elif rows:
            yield from self._block(BlockKind.TABLE, markdown_table(rows, self._limits))


def _in_body(item: Any) -> bool:
    return str(item.content_layer.value) in {"body", "notes"}


def _label(item: Any) -> str:
    return str(getattr(item, "label", ""))


def _page(item: Any) -> int | None:
    provenance = getattr(item, "prov", None)
    return int(provenance[0].page_no) if provenance else None


def _folded(text: str) -> str:
    return " ".join(text.split())


def _running(document: Any) -> frozenset[str]:
    """Texts near the edge of a PDF's pages that repeat, their numbers aside, on several pages: running headers and page numbers."""
    found: dict[str, dict[str, int]] = {}
    for item in document.texts:
        if not item.prov or len(item.text) > 120:
            continue
        place = item.prov[0]
        if place.page_no == 1 and item.label == "section_header":
            continue  # the title that later pages repeat
        height = document.pages[place.page_no].size.height
        box = place.bbox.to_top_left_origin(height)
        if box.b < MARGIN * height or box.t > (1 - MARGIN) * height:
            shape = re.sub(r"\d+", "#", _folded(item.text).casefold())
            found.setdefault(shape, {})[item.self_ref] = place.page_no
    return frozenset(ref for refs in found.values() if len(set(refs.values())) >= REPEATS for ref in refs)
