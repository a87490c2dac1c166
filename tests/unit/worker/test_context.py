"""Progress is bounded and does not run backwards, whatever a handler reports."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.jobs.model import Progress
from shield.worker.context import ALMOST, advanced

COUNTS = ("pages_found", "pages_fetched", "documents", "chunks", "bytes")
REPORTS = st.fixed_dictionaries(
    {}, optional={**{name: st.integers(-5, 10**9) for name in (*COUNTS, "failed")}, "percentage": st.floats(-10, 1000)}
)


@given(st.lists(REPORTS, max_size=8))
def test_counts_only_grow_and_the_percentage_stays_below_100(reports: list[dict[str, float]]) -> None:
    before = Progress()
    for report in reports:
        after = advanced(before, **report)
        assert all(getattr(after, name) >= getattr(before, name) for name in (*COUNTS, "percentage"))
        assert 0 <= after.percentage <= ALMOST
        assert after.failed >= 0
        before = after


def test_failed_may_shrink_because_a_resumed_job_mends_failures() -> None:
    assert advanced(Progress(failed=3), failed=1).failed == 1


def test_an_unknown_number_is_a_mistake() -> None:
    with pytest.raises(TypeError):
        advanced(Progress(), pages=1)


def test_what_is_not_reported_stays() -> None:
    before = Progress(pages_found=1, pages_fetched=2, documents=3, chunks=4, failed=5, bytes=6, percentage=7)
    assert advanced(before) == before
    assert advanced(before, documents=9) == dataclasses.replace(before, documents=9)
