"""What every source is turned into: a converted document, as plain blocks with their place in the original.

The canonical text of a document is its blocks' texts joined by a blank line; every chunk's offsets refer to it. Blocks keep
the reading order. A heading's own text is a block too, and opens the heading path of what follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

SEPARATOR = "\n\n"


class BlockKind(StrEnum):
    """What a block is; tables are Markdown tables, one row a line, header first."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True)
class Block:
    """A heading, paragraph, list, table or code listing."""

    kind: BlockKind
    text: str
    level: int = 0
    """Of a heading: 1 (top) to 6."""
    page: int | None = None
    """From 1, where the format has pages, slides or sheets."""


@dataclass(frozen=True)
class Converted:
    """A document as the knowledge side takes it."""

    blocks: tuple[Block, ...]
    title: str = ""
    mime: str = "text/plain"
    pages: int | None = None
    converter: str = ""
    """Name and version of what made it, e.g. `docling 2.142.0 heuristic`; part of the content hash."""
    links: tuple[str, ...] = ()
    """Absolute outgoing links in their order (HTML only)."""
    canonical: str = ""
    """The absolute address that a page names as its own (HTML only)."""
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The canonical text."""
        return SEPARATOR.join(block.text for block in self.blocks)


@dataclass(frozen=True)
class Source:
    """What a document is known by, and what was said about it."""

    uri: str
    """Canonical URL, `file:` + path, `upload:{name}#{sha256[:12]}`, `text:{sha256}`, or the caller's own `source`."""
    kind: str
    """web | file | note."""
    metadata: dict[str, str | int | float | bool | list[str]] = field(default_factory=dict)
    fetched_at: datetime | None = None
    bytes: int = 0
