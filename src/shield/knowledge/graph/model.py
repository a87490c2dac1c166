"""The words of the graph: what is extracted from a chunk, and what a query of the graph gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

GraphMode = Literal["naive", "local", "global", "hybrid", "mix"]


@dataclass(frozen=True)
class Entity:
    """A thing a text speaks of."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Relation:
    """How two entities belong together; undirected, `source < target`."""

    source: str
    target: str
    keywords: str
    description: str


@dataclass(frozen=True)
class Extraction:
    """What a chunk says, as a graph."""

    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True)
class GraphChunk:
    """A chunk the graph found: the ordinal-th chunk of every document with this graph key; rank counts from 1."""

    graph_key: str
    ordinal: int
    rank: int


@dataclass(frozen=True)
class GraphAnswer:
    """What the graph says about a question, best first; text that only deleted documents held is not in it."""

    chunks: tuple[GraphChunk, ...] = ()
    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True)
class GraphFingerprint:
    """What a graph holds, in a form that two machines can compare."""

    entities: int
    relations: int
    digest: str


@dataclass(frozen=True)
class GraphTask:
    """A row of `graph_tasks`: a text to add for a document, or to take away from it."""

    id: int
    knowledge_base_id: UUID
    operation: Literal["add", "remove"]
    document_id: UUID
    revision: int | None
    graph_key: str
    errors: int
    job_id: UUID | None = None
    """Whose budget it spends."""
    waited: float = 0.0
    """Seconds from when it could be written to when it was begun."""


@dataclass(frozen=True)
class Observer:
    """Who is told what becomes of graph steps, for the metrics; what is called must neither wait nor fail."""

    step: Callable[[str, str], None] = lambda _operation, _result: None
    """A try of a step ended: `read`, `add` or `remove`, and how."""
    waited: Callable[[float], None] = lambda _seconds: None
    """A step is begun that could have been begun so many seconds ago."""


NOBODY = Observer()


def workspace(knowledge_base_id: UUID) -> str:
    """LightRAG's workspace of a knowledge base, and its row in `kb_writer`."""
    return knowledge_base_id.hex
