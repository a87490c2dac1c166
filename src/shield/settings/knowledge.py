"""The library: its graph, its questions, its upkeep."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from shield.settings.base import Duration, Group, seconds


class GraphSettings(Group):
    batch: Duration = seconds(30)
    """Longest time a knowledge base's graph writer is held at a stretch."""
    lease: Duration = seconds(45)
    """A writer that is silent for this long has lost the graph."""
    idle: Duration = seconds(30)
    """After this pause the graph's processes are stopped."""
    max_entities: int = Field(8, ge=1)
    """Entities the rule-based extraction takes from a chunk."""
    max_relations: int = Field(6, ge=1)
    """Relations the rule-based extraction takes from a chunk."""
    part: int = Field(64, ge=1, le=900)
    """Chunks written as one unit: what a crash repeats at most, and between two of them the writer can be handed over."""
    part_timeout: Duration = seconds(180)
    """Longest time one unit may take; then its process is killed."""
    start: Duration = seconds(60)
    """Longest start of a graph process: it loads LightRAG and, the first time, makes its tables."""
    query: Duration = seconds(20)
    """Longest time a question may spend in the graph."""


class QuerySettings(Group):
    timeout: Duration = seconds(55)
    """Longest time a tool or query may take; clients give up at 60 s."""
    top_k: int = 20
    """Entities and relations read from the graph."""
    chunk_top_k: int = 10
    """Chunks an answer is made of."""
    prefetch: int = 30
    """Hits each of the dense and the sparse search hand to the fusion."""
    rrf_k: int = 60
    """Constant of the reciprocal rank fusion."""
    floor: float = 0.25
    """Cosine below which a question counts as not answered by what is stored, unless the words themselves are found."""
    sure: float = 0.4
    """Cosine from which a question counts as answered even if it shares no word with a passage."""
    cursor_ttl: Duration = timedelta(minutes=10)
    """How long a cursor lives."""
    find_max_tokens: int = 4000
    """Default bound of a search's text."""


class LibrarySettings(Group):
    abandoned_after: Duration = timedelta(hours=1)
    """A note's write that has not ended by then was cut off; what it left is removed."""
    race_window: Duration = seconds(60)
    """A search that meets the old version of a document updated this recently looks again."""
    cache_keep: Duration = timedelta(days=7)
    """How long a cached vector is kept that no passage uses."""
    max_delete_batch: int = Field(20, ge=1, le=1000)
    """Documents whose deletion is proven in one pass over the stores."""
    rollback_window: Duration = timedelta(days=7)
    """How long after a flip the old collection is still written, so that a rollback finds it complete; then it is dropped."""
    golden_questions: int = Field(50, ge=1, le=500)
    """Questions a reindex takes from stored headings when the request brings none."""
    found_tolerance: float = Field(0.05, ge=0, le=1)
    """By how much the new collection's found rate may lie below the old one's for a reindex to flip by itself."""
