"""What a job shows, and how it ends, follows from its outcomes alone."""

from __future__ import annotations

from shield.errors import DocumentCorrupt, NothingIngested
from shield.jobs.model import DocumentOutcome, OutcomeStatus
from shield.worker.tally import Tally


def tally(*outcomes: tuple[OutcomeStatus, str | None]) -> Tally:
    made = Tally()
    for number, (status, code) in enumerate(outcomes, 1):
        made.add(DocumentOutcome(number=number, source=str(number), status=status, code=code, chunks=2, bytes=10))
    return made


STORED = (OutcomeStatus.STORED, None)
UNCHANGED = (OutcomeStatus.UNCHANGED, None)
CORRUPT = (OutcomeStatus.FAILED, "document.corrupt")
DENIED = (OutcomeStatus.SKIPPED, "robots.denied")


def test_numbers_count_good_documents_and_failures() -> None:
    assert tally(STORED, UNCHANGED, CORRUPT, DENIED).numbers() == {"documents": 2, "chunks": 4, "failed": 1, "bytes": 40}


def test_a_later_outcome_of_a_number_replaces_the_earlier() -> None:
    made = tally(CORRUPT)
    made.add(DocumentOutcome(number=1, source="1", status=OutcomeStatus.STORED))
    assert made.numbers()["failed"] == 0
    assert made.verdict() == "complete"


def test_one_good_document_completes_a_job() -> None:
    assert tally(STORED).verdict() == "complete"
    assert tally(UNCHANGED, DENIED).verdict() == "complete"
    assert tally(UNCHANGED, CORRUPT).verdict() == "partial"


def test_a_document_that_is_not_in_the_graph_makes_the_job_partial() -> None:
    assert tally((OutcomeStatus.STORED, "dependency.rejected"), STORED).verdict() == "partial"


def test_a_single_failure_is_the_jobs_own_error() -> None:
    assert isinstance(tally(CORRUPT).verdict(), DocumentCorrupt)
    assert isinstance(tally(CORRUPT, CORRUPT).verdict(), NothingIngested)
    assert isinstance(tally().verdict(), NothingIngested)
