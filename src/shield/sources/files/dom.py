"""HTML as a tree: parsed once, leniently, in C; measured; relieved of what is not content; turned into blocks.

libxml2 closes what authors leave open and never nests deeper than 2,048, so measuring its tree is exact and cheap, and what
is handed on is well formed. Blocks come from the tree itself: a detour over Markdown would eat asterisks, angle brackets
and pipes of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

from shield.errors import DocumentBomb, DocumentEmpty
from shield.sources.files.limits import Limits
from shield.sources.files.text import decode, markdown_table
from shield.sources.model import Block, BlockKind

MAX_LINKS = 10_000
MAX_SPAN = 200
"""Columns or rows that one table cell may claim."""

_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset=[\"'\s]*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset({"ul", "ol", "dl"})
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "div", "dl", "dt", "fieldset"}
    | {"figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "html", "legend", "li", "main", "nav", "ol", "p"}
    | {"section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"}
)
_HEAD = frozenset({"head", "title", "meta", "link"})
_INERT = frozenset(
    {"script", "style", "noscript", "template", "iframe", "object", "embed", "svg", "canvas", "select", "button", "input", "textarea"}
)
_IGNORED = _HEAD | _INERT
_FURNITURE_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "complementary", "dialog", "alertdialog", "menu", "menubar"})
_CONSENT = re.compile(r"(?:cookie|consent|gdpr)[-_ ]?(?:banner|bar|notice|popup|dialog|modal|overlay|consent|law)", re.IGNORECASE)


def parse(content: bytes, charset: str | None, limits: Limits) -> Any:
    """The tree of a page.

    Raises:
        DocumentBomb: its elements are nested deeper than allowed.
        DocumentEmpty: there is nothing in it.
        DocumentEncodingUnknown: see `decode`.
    """
    declared = _META_CHARSET.search(content[:4096])
    return parse_text(decode(content, charset or (declared[1].decode("ascii") if declared else None)), limits)


def parse_text(text: str, limits: Limits) -> Any:
    """The tree of a page that is decoded already; see `parse`."""
    from lxml import etree, html

    parser = html.HTMLParser(encoding="utf-8", huge_tree=True, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError) as error:
        raise DocumentEmpty from error
    depth = 0
    for event, _ in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > limits.max_html_depth:
            raise DocumentBomb("The page's elements are nested deeper than allowed.", limit=limits.max_html_depth)
    return root


def serialize(root: Any) -> str:
    """Well-formed HTML of a tree."""
    from lxml import html

    return "<!doctype html>\n" + str(html.tostring(root, encoding="unicode"))


def title(root: Any) -> str:
    """The page's title, or its first top heading."""
    for path in (".//head/title", ".//title", ".//h1"):
        found = root.find(path)
        if found is not None and (text := " ".join(found.text_content().split())):
            return text[:500]
    return ""


def links(root: Any, url: str) -> list[str]:
    """Absolute http(s) addresses the page links to, in their order, each once, without fragments."""
    base = root.find(".//base[@href]")
    origin = _join(url, base.get("href")) or url if base is not None else url
    found: dict[str, None] = {}
    for element in root.iter("a", "area"):
        target = _join(origin, element.get("href"))
        if target and len(found) < MAX_LINKS:
            found.setdefault(target)
    return list(found)


def canonical(root: Any, url: str) -> str:
    """The absolute address that the page names as its own (`<link rel=canonical>`); empty if it names none, or several."""
    links = [link for link in root.iter("link") if "canonical" in (link.get("rel") or "").lower().split()]
    named = {_join(url, link.get("href")) for link in links}
    return named.pop() or "" if len(named) == 1 else ""


def _join(base: str, href: str | None) -> str | None:
    if href is None:
        return None
    try:
        target = urldefrag(urljoin(base, href.strip())).url
        parts = urlsplit(target)
        return target if parts.scheme in {"http", "https"} and parts.hostname and len(target) <= 2048 else None
    except ValueError:
        return None


def drop_furniture(root: Any) -> None:
    """Remove navigation, site headers and footers, asides, consent banners and hidden parts; an article keeps its own header."""
    for element in list(root.iter()):
        if not isinstance(element.tag, str) or element.getparent() is None or element.tag in {"html", "body", "main", "article"}:
            continue
        if element.tag in {"header", "footer"} and any(a.tag in {"article", "main"} for a in element.iterancestors()):
            element.tag = "div"
        elif _is_furniture(element):
            element.drop_tree()


def _is_furniture(element: Any) -> bool:
    if element.tag in {"nav", "aside", "header", "footer"} or element.tag in _INERT:
        return True
    if element.get("role") in _FURNITURE_ROLES or element.get("hidden") is not None or element.get("aria-hidden") == "true":
        return True
    return bool(_CONSENT.search(f"{element.get('id', '')} {element.get('class', '')}"))


def words(root: Any) -> int:
    """How many words a tree holds."""
    return len(" ".join(root.itertext()).split())


def html_blocks(root: Any, limits: Limits) -> list[Block]:
    """The content of a tree as blocks, in its order."""
    walker = _Walker(limits)
    walker.walk(root)
    walker.flush()
    return walker.blocks


class _Walker:
    """Collects inline text until a block element ends it."""

    def __init__(self, limits: Limits) -> None:
        self.blocks: list[Block] = []
        self._limits = limits
        self._run: list[str] = []

    def flush(self) -> None:
        text = _tidy("".join(self._run))
        self._run.clear()
        if text:
            self.blocks.append(Block(BlockKind.PARAGRAPH, text))

    def walk(self, element: Any) -> None:
        tag = element.tag
        if not isinstance(tag, str) or tag in _IGNORED:
            return
        if tag in _HEADINGS:
            self._add(BlockKind.HEADING, " ".join(_inline(element).split()), _HEADINGS[tag])
        elif tag == "pre":
            self._add(BlockKind.CODE, _code(element))
        elif tag in _LISTS and not _holds(element, "pre", "table", *_HEADINGS):
            self._add(BlockKind.LIST, "\n".join(_items(element)))
        elif tag == "table" and element.find(".//table") is None and (rows := _rows(element, self._limits)):
            caption = element.find("caption")
            if caption is not None:
                self._add(BlockKind.PARAGRAPH, _tidy(_inline(caption)))
            self._add(BlockKind.TABLE, markdown_table(rows, self._limits))
        elif tag == "br":
            self._run.append("\n")
        else:
            self._children(element, block=tag in _BLOCKS)

    def _children(self, element: Any, *, block: bool) -> None:
        if block:
            self.flush()
        self._run.append(_folded(element.text))
        for child in element:
            self.walk(child)
            self._run.append(_folded(child.tail))
        if block:
            self.flush()

    def _add(self, kind: BlockKind, text: str, level: int = 0) -> None:
        self.flush()
        if text.strip():
            self.blocks.append(Block(kind, text, level))


def _holds(element: Any, *tags: str) -> bool:
    return next(element.iter(*tags), None) is not None


def _folded(text: str | None) -> str:
    return re.sub(r"\s+", " ", text) if text else ""


def _tidy(text: str) -> str:
    """One space between words; line breaks of the author kept."""
    return "\n".join(line for line in (" ".join(line.split()) for line in text.split("\n")) if line)


def _inline(element: Any, *, skip: frozenset[str] = frozenset()) -> str:
    parts = [_folded(element.text)]
    for child in element:
        if isinstance(child.tag, str) and child.tag not in _IGNORED and child.tag not in skip:
            edge = "\n" if child.tag == "br" or child.tag in _BLOCKS else ""
            parts += [edge, _inline(child, skip=skip), edge]
        parts.append(_folded(child.tail))
    return "".join(parts)


def _code(element: Any) -> str:
    for br in list(element.iter("br")):
        br.tail = "\n" + (br.tail or "")
    lines = "".join(element.itertext()).replace("\r\n", "\n").split("\n")
    while lines and not lines[0].strip():
        lines.pop(0)
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _items(element: Any, indent: str = "") -> Iterator[str]:
    number = 1
    term = ""
    for item in element:
        text = " ".join(_inline(item, skip=_LISTS).split()) if isinstance(item.tag, str) else ""
        if item.tag == "dt":
            term = text
        elif item.tag == "dd":
            yield f"{indent}- {term}: {text}" if term else f"{indent}- {text}"
            term = ""
        elif text and item.tag not in _LISTS:
            yield f"{indent}{number}. {text}" if element.tag == "ol" else f"{indent}- {text}"
            number += 1
        for nested in [item] if item.tag in _LISTS else _nested_lists(item):
            yield from _items(nested, indent + "  ")


def _nested_lists(item: Any) -> Iterator[Any]:
    """The lists below an item that belong to no list in between."""
    for child in item:
        if child.tag in _LISTS:
            yield child
        else:
            yield from _nested_lists(child)


def _rows(table: Any, limits: Limits) -> list[list[str]]:
    """A table's cells with spans filled in; empty for a table that only does layout."""
    rows: list[list[str]] = []
    carried: dict[int, tuple[int, str]] = {}
    cells = 0
    for line in table.iter("tr"):
        row: list[str] = []
        for cell in line.iterchildren("td", "th"):
            _carry(row, carried)
            text = " ".join(_inline(cell).split())
            below = _span(cell, "rowspan") - 1
            for _ in range(_span(cell, "colspan")):
                if below:
                    carried[len(row)] = (below, text)
                row.append(text)
        _carry(row, carried)
        cells += len(row)
        if cells > limits.max_cells:
            raise DocumentBomb("A table spans more cells than allowed.", limit=limits.max_cells)
        if any(row):
            rows.append(row)
    return rows if len(rows) > 1 or (rows and len(rows[0]) > 2) else []


def _carry(row: list[str], carried: dict[int, tuple[int, str]]) -> None:
    while (column := len(row)) in carried:
        left, text = carried.pop(column)
        if left > 1:
            carried[column] = (left - 1, text)
        row.append(text)


def _span(cell: Any, name: str) -> int:
    value = (cell.get(name) or "1").strip()
    return min(max(int(value), 1), MAX_SPAN) if value.isascii() and value.isdigit() and len(value) < 6 else 1
