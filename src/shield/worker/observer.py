"""Who is told what happens in a worker, for its metrics; what is called must neither wait nor fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shield.jobs.model import Job, Swept


@dataclass(frozen=True)
class Observer:
    """By default nobody is told."""

    ended: Callable[[Job], None] = lambda _: None
    """A job reached an end state here."""
    stage: Callable[[str, float], None] = lambda _stage, _seconds: None
    """A run of a job left a stage after that many seconds."""
    lapsed: Callable[[], None] = lambda: None
    """A job was taken over whose lease had run out."""
    swept: Callable[[Swept], None] = lambda _: None
    """A sweep was done."""
