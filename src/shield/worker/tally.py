"""Counting a job's outcomes: the numbers a job shows, and how it may end, follow from the outcomes alone.

A resumed job reads its outcomes back first, so its numbers go on where they were and never count a page twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from shield.errors import NothingIngested, ShieldError, from_code
from shield.jobs.model import DocumentOutcome, JobId, OutcomeStatus
from shield.jobs.repository import JobRepository

_PAGE = 500  # outcomes read at a time
_GOOD = frozenset({OutcomeStatus.STORED, OutcomeStatus.UNCHANGED, OutcomeStatus.DELETED})


@dataclass
class Tally:
    """The outcomes of one job by number."""

    outcomes: dict[int, DocumentOutcome] = field(default_factory=dict)

    @classmethod
    async def of(cls, jobs: JobRepository, job: JobId) -> Tally:
        """What is recorded already."""
        tally, after = cls(), 0
        while page := await jobs.outcomes(job, after=after, limit=_PAGE):
            for outcome in page:
                tally.add(outcome)
            after = page[-1].number
        return tally

    def add(self, outcome: DocumentOutcome) -> None:
        """Count an outcome; the later one of a number replaces the earlier."""
        self.outcomes[outcome.number] = outcome

    def numbers(self) -> dict[str, Any]:
        """Values for `Progress`."""
        good = [outcome for outcome in self.outcomes.values() if outcome.status in _GOOD]
        return {
            "documents": sum(outcome.status is not OutcomeStatus.DELETED for outcome in good),
            "chunks": sum(outcome.chunks for outcome in good),
            "failed": self.failed,
            "bytes": sum(outcome.bytes for outcome in self.outcomes.values()),
        }

    @property
    def counted(self) -> int:
        """Pages for which a request was sent."""
        return sum(1 for outcome in self.outcomes.values() if outcome.counted)

    @property
    def failed(self) -> int:
        """Documents that gave nothing, or whose graph step failed."""
        return sum(1 for outcome in self.outcomes.values() if outcome.status is OutcomeStatus.FAILED)

    def verdict(self) -> Literal["complete", "partial"] | ShieldError:
        """How the job ends: an outcome if at least one document is stored or unchanged, otherwise the error.

        A single document that failed gives its own error, several give `job.nothing_ingested`.
        """
        good = any(outcome.status in _GOOD for outcome in self.outcomes.values())
        troubled = any(outcome.code and outcome.status is not OutcomeStatus.SKIPPED for outcome in self.outcomes.values())
        if good:
            return "partial" if troubled else "complete"
        reasons = [outcome for outcome in self.outcomes.values() if outcome.code]
        if len(self.outcomes) == 1 and reasons:
            return from_code(reasons[0].code or "", reasons[0].message)
        return NothingIngested()
