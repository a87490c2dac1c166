"""How many jobs of one process may be in the same stage at once.

A worker has slots for jobs; what they do at a time costs different things: fetching waits, indexing computes. A job that waits
for its stage keeps its slot and its heartbeat. Conversions have lanes of their own (`sources.files.convert`).
"""

from __future__ import annotations

from asyncio import Semaphore
from dataclasses import dataclass, field

from shield.settings import WorkerSettings


@dataclass(frozen=True)
class Stages:
    """The bounds of one process; belongs to one event loop."""

    fetch: Semaphore = field(default_factory=lambda: Semaphore(WorkerSettings().fetch))
    """Jobs that fetch: a crawl as a whole, a document while it is fetched."""
    index: Semaphore = field(default_factory=lambda: Semaphore(WorkerSettings().index))
    """Documents that are embedded and indexed."""

    @classmethod
    def of(cls, settings: WorkerSettings) -> Stages:
        """The bounds that `settings` name."""
        return cls(Semaphore(settings.fetch), Semaphore(settings.index))
