"""What the use cases are made of; built once by `shield.app` and handed to each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from shield.jobs.events import JobEvents
from shield.jobs.repository import JobRepository
from shield.knowledge.bases import KnowledgeBases
from shield.knowledge.graph.reader import GraphReader
from shield.knowledge.library import Library
from shield.knowledge.llm import Llm
from shield.service.cursors import Cursors
from shield.service.models import DependencyHealth
from shield.settings import Settings
from shield.sources.uploads import Uploads

Probe = Callable[[], Awaitable[DependencyHealth]]


def _nothing() -> None:
    """No worker lives in this process."""


@dataclass(frozen=True)
class Parts:
    """The components of one process."""

    settings: Settings
    engine: AsyncEngine
    jobs: JobRepository
    events: JobEvents
    bases: KnowledgeBases
    library: Library
    uploads: Uploads
    cursors: Cursors
    graph: GraphReader
    llm: Llm | None = None
    probes: Sequence[Probe] = ()
    notify: Callable[[], None] = field(default=_nothing)
    """Wake the worker of this process: there is a new job."""
