"""What happens inside the converting child: pre-flight, then the reader for the kind, then one JSON answer.

Nothing here knows of processes; `host.py` calls `perform` in a child of its own, under limits, and tests call it directly.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shield.errors import (
    DocumentCorrupt,
    DocumentEmpty,
    DocumentEncrypted,
    DocumentTooLarge,
    DocumentTooManyPages,
    ShieldError,
)
from shield.sources.files import archive, document, dom, sniff, text, webpage
from shield.sources.files.limits import Limits
from shield.sources.files.sniff import Kind
from shield.sources.model import Block, BlockKind

REVISION = 1
"""Raise it when the same file would yield other blocks: it is part of every content hash."""

WARM_UP = b"<!doctype html><title>t</title><body><main><h1>One</h1><p>Some <a href='/x'>words</a> to read here.</p></main></body>"
WARM_UP_LIMITS = Limits(*[10_000] * len(Limits.__dataclass_fields__))
LIBRARIES = {"docling": "docling-slim", "crawl4ai": "crawl4ai"}
"""What a child may be forked with, and the distribution that names its version."""


@dataclass
class Prepared:
    """What the host loaded before it forked."""

    converter: Any = None
    extractor: webpage.Extractor | None = None


def prepare(library: str | None) -> Prepared:
    """Import a heavy library, and build what every child would build; called in the host, on no one's data."""
    match library:
        case "docling":
            import pypdfium2  # noqa: F401 - counts pages before Docling reads a PDF

            return Prepared(converter=document.build_converter(warm=True))
        case "crawl4ai":
            extractor = webpage.Extractor()
            extractor.extract(WARM_UP, "http://localhost/", None, WARM_UP_LIMITS)
            return Prepared(extractor=extractor)
        case _:
            return Prepared()


def perform(request: dict[str, Any], content: bytes, prepared: Prepared, pages: Callable[[int], None]) -> dict[str, Any]:
    """Convert one file or page; `pages` is told their number as soon as it is known.

    Returns:
        blocks as `[kind, text, level, page]`, title, mime, pages, converter, links, canonical, warnings; or `error`, `message`, `details`.
    """
    limits = Limits(**request["limits"])
    try:
        match request["operation"]:
            case "page":
                return _page(request, content, limits, prepared)
            case "file":
                return _file(request, content, limits, prepared, pages)
            case _:
                return inspect()
    except ShieldError as error:
        return {"error": error.code, "message": error.message, "details": error.details}


def _page(request: dict[str, Any], content: bytes, limits: Limits, prepared: Prepared) -> dict[str, Any]:
    extractor = prepared.extractor or webpage.Extractor()
    page = extractor.extract(content, request["url"], request["charset"], limits)
    answer = _answer(page.blocks, limits, title=page.title, mime=Kind.HTML.mime, library="crawl4ai", links=page.links)
    return {**answer, "canonical": page.canonical}


def _file(request: dict[str, Any], content: bytes, limits: Limits, prepared: Prepared, pages: Callable[[int], None]) -> dict[str, Any]:
    if not content.strip():
        raise DocumentEmpty
    kind = sniff.sniff(content, request["filename"], request["mime"], lambda: archive.entry_names(content, limits))
    title = ""
    if kind in {Kind.TXT, Kind.CSV}:
        decoded = text.decode(content)
        blocks = list(text.text_blocks(decoded) if kind is Kind.TXT else text.csv_blocks(decoded, limits))
        return _answer(blocks, limits, mime=kind.mime, library=None)
    if kind is Kind.PDF:
        count, title = check_pdf(content, limits)
        pages(count)
    elif kind is Kind.HTML:
        root = dom.parse(content, None, limits)
        title, content = dom.title(root), b"\xef\xbb\xbf" + dom.serialize(root).encode()
    elif kind is Kind.MD:
        title, rest = text.front_matter(text.decode(content))
        content = rest.encode()
    else:
        pages(archive.check_office(content, kind, limits) or 1)
    if not content.strip():
        raise DocumentEmpty
    found = document.convert(prepared.converter or document.build_converter(), content, kind, limits)
    return _answer(
        found.blocks,
        limits,
        title=_title(kind, title, found.blocks),
        mime=kind.mime,
        library="docling",
        pages=found.pages,
        warnings=found.warnings,
    )


def check_pdf(content: bytes, limits: Limits) -> tuple[int, str]:
    """Number of pages and declared title of a PDF.

    Raises:
        DocumentEncrypted, DocumentCorrupt, DocumentTooManyPages: see their sentences.
    """
    import pypdfium2

    try:
        file = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        # The only place where a message must be read: the library has one class for all causes.
        raise (DocumentEncrypted if "password" in str(error).lower() else DocumentCorrupt) from error
    try:
        count = len(file)
        title = str(file.get_metadata_dict().get("Title") or "")
    finally:
        file.close()
    if count == 0:
        raise DocumentEmpty
    if count > limits.max_pages:
        raise DocumentTooManyPages(limit=limits.max_pages, pages=count)
    return count, title


def _title(kind: Kind, declared: str, blocks: list[Block]) -> str:
    """The declared title; for PDF, where that is often a file name, the first page's first heading comes before it."""
    heading = next((b.text for b in blocks if b.kind is BlockKind.HEADING and (b.page or 1) == 1), "")
    if kind is Kind.XLSX:
        return declared
    return heading or declared if kind is Kind.PDF else declared or heading


def _answer(
    blocks: list[Block],
    limits: Limits,
    *,
    mime: str,
    library: str | None,
    title: str = "",
    pages: int | None = None,
    links: list[str] | None = None,
    warnings: tuple[str, ...] = (),
) -> dict[str, Any]:
    # A workbook's sheets have names even if they have nothing else.
    if not any(block.text.strip() for block in blocks if mime != Kind.XLSX.mime or block.kind is not BlockKind.HEADING):
        raise DocumentEmpty
    if sum(len(block.text.encode("utf-8", "replace")) for block in blocks) > limits.max_text_bytes:
        raise DocumentTooLarge("The file yields more text than allowed.", limit=limits.max_text_bytes)
    return {
        "blocks": [[str(block.kind), text.storable(block.text), block.level, block.page] for block in blocks],
        "title": " ".join(text.storable(title).split())[:500],
        "mime": mime,
        "pages": pages,
        "converter": f"{_made_by(library)}{' heuristic' if mime == Kind.PDF.mime else ''} shield {REVISION}",
        "links": links or [],
        "canonical": "",
        "warnings": list(warnings),
    }


def _made_by(library: str | None) -> str:
    return f"{library} {importlib.metadata.version(LIBRARIES[library])}" if library else "text"


def recipe() -> str:
    """Everything that may change what a file or page is turned into: equal recipes give equal blocks."""
    return ", ".join((*(_made_by(library) for library in LIBRARIES), f"shield {REVISION}"))


def inspect() -> dict[str, Any]:
    """What a child can see of its surroundings; `shield doctor` and the tests ask."""
    import os
    import resource
    import socket
    from pathlib import Path

    return {
        "environment": sorted(os.environ),
        "descriptors": sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "session": os.getsid(0) == os.getpid(),
        "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        "no_new_privileges": "NoNewPrivs:\t1" in Path("/proc/self/status").read_text(encoding="ascii"),
        "home": os.environ.get("HOME", ""),
    }
