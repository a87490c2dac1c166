"""Notes: short texts handed over directly, stored as documents of kind `note`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from shield.sources.model import Block, BlockKind, Converted, Source


def note(source: str, text: str, metadata: Mapping[str, str | int | float | bool | list[str]]) -> tuple[Source, Converted]:
    """A note as the library takes it: one paragraph a blank-line-separated part, nothing interpreted."""
    parts = [part.strip() for part in text.replace("\r\n", "\n").split("\n\n")]
    blocks = tuple(Block(BlockKind.PARAGRAPH, part) for part in parts if part)
    origin = Source(uri=source, kind="note", metadata=dict(metadata), fetched_at=datetime.now(UTC), bytes=len(text.encode()))
    return origin, Converted(blocks=blocks, mime="text/plain", converter="shield-note-1")
