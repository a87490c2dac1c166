"""What the use cases are made of; built once by `shield.app` and handed to each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from shield.jobs.events import JobEvents
from shield.jobs.model import JobId
from shield.jobs.repository import JobRepository
from shield.knowledge.bases import Bases
from shield.knowledge.documents import Documents
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.graph.reader import GraphReader
from shield.knowledge.library import Library
from shield.knowledge.llm import Llm
from shield.knowledge.search import Searcher
from shield.knowledge.vectors.port import VectorIndex
from shield.service.cursors import Cursors
from shield.service.models import DependencyHealth
from shield.settings import Settings
from shield.sources.uploads import Uploads

Probe = Callable[[], Awaitable[DependencyHealth]]


def _nobody(_job: JobId | None = None) -> None:
    """No worker lives in this process."""


async def _nothing() -> frozenset[str]:
    """No worker offers anything special."""
    return frozenset()


@dataclass(frozen=True)
class Parts:
    """The components of one process."""

    settings: Settings
    engine: AsyncEngine
    jobs: JobRepository
    events: JobEvents
    bases: Bases
    library: Library
    search: Searcher
    documents: Documents
    vectors: VectorIndex
    uploads: Uploads
    cursors: Cursors
    graph: GraphReader
    embedder: CachedEmbedder
    llm: Llm | None = None
    probes: Sequence[Probe] = ()
    offers: Callable[[], Awaitable[frozenset[str]]] = field(default=_nothing)
    """Tells which needs the workers of this installation can meet right now (`browser`)."""
    notify: Callable[[JobId | None], None] = field(default=_nobody)
    """Wake the worker of this process: there is a new job, or (with an id) this running one was cancelled."""
