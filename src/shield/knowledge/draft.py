"""A document on its way in: cleaned, cut into chunks, hashed; pure computation, nothing is stored yet.

The content hash covers all that readers and the indexes see and all that made it (cleaner, converter, chunker, the embedding model
that the base was made with), so content is unchanged exactly when storing it again would give the same rows. The graph key covers the chunks' texts only:
sources with equal chunks share one document of the graph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from shield.errors import DocumentEmpty, InvalidRequest
from shield.knowledge.chunking import CHUNKER, chunk
from shield.knowledge.model import Chunk, KnowledgeBase, document_id
from shield.knowledge.needles import MIN_WORDS
from shield.knowledge.sentences import words
from shield.knowledge.untrusted import CLEANER, SUSPECTED_INJECTION, clean_document, clean_line, suspicious, visible
from shield.knowledge.vectors.port import FilterValue
from shield.sources.model import BlockKind, Converted, Source

Metadata = dict[str, str | int | float | bool | list[str]]
MAX_TITLE = 500
_SEPARATOR = "\x1e"
_KINDS = frozenset({"web", "file", "note"})


@dataclass(frozen=True)
class Draft:
    """What is written for one revision of a document."""

    document_id: UUID
    source: str
    kind: str
    title: str
    mime: str
    text: str
    chunks: tuple[Chunk, ...]
    chunk_flags: tuple[tuple[str, ...], ...]
    flags: tuple[str, ...]
    metadata: Metadata
    content_hash: str
    graph_key: str
    pages: int | None
    bytes: int
    fetched_at: datetime | None

    @property
    def fields(self) -> dict[str, FilterValue | list[str]]:
        """The filter fields of its points."""
        return fields_of(self.source, self.kind, self.mime, self.fetched_at, self.metadata)


def prepare(kb: KnowledgeBase, source: Source, converted: Converted, title: str | None, count_tokens: Callable[[str], int]) -> Draft:
    """Clean, cut and hash a converted document; CPU-bound, so run it in a thread.

    Raises:
        DocumentEmpty: no text is left.
        InvalidRequest: the source's name or kind cannot be stored.
    """
    if not source.uri or source.uri != visible(source.uri) or source.kind not in _KINDS:
        raise InvalidRequest("A source's name is not empty and has no invisible characters.", field="source")
    cleaned, flags = clean_document(converted)
    chunks = tuple(chunk(cleaned, count_tokens))
    if not chunks:
        raise DocumentEmpty
    chunk_flags = tuple((SUSPECTED_INJECTION,) if suspicious(piece.embedded_text) else () for piece in chunks)
    metadata = _plain(source.metadata)
    named = clean_line(title or "", MAX_TITLE) or cleaned.title or _first_heading(cleaned)
    return Draft(
        document_id=document_id(kb.id, source.uri),
        source=source.uri,
        kind=source.kind,
        title=named,
        mime=cleaned.mime,
        text=cleaned.text,
        chunks=chunks,
        chunk_flags=chunk_flags,
        flags=tuple(sorted({*flags, *(flag for each in chunk_flags for flag in each)})),
        metadata=metadata,
        content_hash=_content_hash(kb, source.kind, named, metadata, cleaned),
        graph_key=_graph_key(chunks),
        pages=cleaned.pages,
        bytes=source.bytes,
        fetched_at=source.fetched_at,
    )


def fields_of(source: str, kind: str, mime: str, fetched_at: datetime | None, metadata: Metadata) -> dict[str, FilterValue | list[str]]:
    """The filter fields of a document's points: provenance and metadata, never text."""
    fields: dict[str, FilterValue | list[str]] = {"source": source, "kind": kind, "mime": mime}
    if host := host_of(source):
        fields["host"] = host
    if fetched_at is not None:
        fields["fetched_at"] = fetched_at.timestamp()
    for key, value in metadata.items():
        kept = [item for item in value if filterable(item)] if isinstance(value, list) else value
        if not isinstance(kept, str) or filterable(kept):
            fields[f"metadata.{key}"] = kept
    return fields


def filterable(value: str) -> bool:
    """Whether a metadata value may be a filter field: a sentence may not, or text would outlive its document in the index's files."""
    return len(words(value)) < MIN_WORDS


def host_of(source: str) -> str | None:
    """The host of a web address, in lower case; None for every other source."""
    if not source.startswith(("http://", "https://")):
        return None
    try:
        return urlsplit(source).hostname
    except ValueError:
        return None


def _graph_key(chunks: tuple[Chunk, ...]) -> str:
    # The separator in front keeps the key of a single chunk apart from that chunk's own hash in the embedding cache.
    return hashlib.sha256("".join(_SEPARATOR + piece.embedded_text for piece in chunks).encode()).hexdigest()


def _content_hash(kb: KnowledgeBase, kind: str, title: str, metadata: Metadata, cleaned: Converted) -> str:
    made_by = [CLEANER, CHUNKER, cleaned.converter, *kb.founded_on]
    blocks = [[block.kind, block.level, block.page, block.text] for block in cleaned.blocks]
    whole = json.dumps([made_by, kind, title, cleaned.mime, cleaned.pages, metadata, blocks], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()


def _first_heading(converted: Converted) -> str:
    headings = (block.text for block in converted.blocks if block.kind is BlockKind.HEADING)
    return clean_line(next(headings, ""), MAX_TITLE)


def _plain(metadata: Metadata) -> Metadata:
    """Metadata as PostgreSQL and UTF-8 can hold it."""
    plain: dict[str, Any] = {}
    for key, value in metadata.items():
        if isinstance(value, str):
            plain[visible(key)] = visible(value)
        elif isinstance(value, list):
            plain[visible(key)] = [visible(item) for item in value]
        else:
            plain[visible(key)] = value
    return plain
