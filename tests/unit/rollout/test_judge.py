"""Verdicts: what condemns a canary, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.rollout.judge import Limits, Track, Word, judge

STABLE = Track(calls=10, errors=0.0, p95={"query": 0.4, "accept": 0.1}, empty=0.2)
LIMITS = Limits()
shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("worse", "reason"),
    [
        ({"errors": 0.02}, "2.0% of calls fail by our fault; stable 0.0%, bound 1.0%"),
        ({"p95": {"query": 0.8, "accept": 0.1}}, "p95 of query tools is 0.80 s; stable 0.40 s, bound 0.70 s"),
        ({"p95": {"accept": 0.5}}, "p95 of accept tools is 0.50 s; stable 0.10 s, bound 0.25 s"),
        ({"empty": 0.4}, "40% of searches find nothing; stable 20%, bound 30%"),
    ],
)
def test_what_is_worse_than_stable_by_more_than_its_margin_condemns(worse: dict[str, object], reason: str) -> None:
    verdict = judge(STABLE, replace(STABLE, **worse), LIMITS)  # type: ignore[arg-type]
    assert (verdict.word, verdict.reasons) == (Word.BAD, (reason,))


def test_what_hurts_both_condemns_neither() -> None:
    ill = Track(calls=10, errors=0.6, p95={"query": 30.0}, empty=0.9)
    assert judge(ill, ill, LIMITS).word is Word.GOOD


def test_too_few_calls_are_no_verdict_however_bad_they_are() -> None:
    verdict = judge(STABLE, Track(calls=0.3, errors=1.0), LIMITS)
    assert (verdict.word, verdict.reasons) == (Word.TOO_FEW, ("18 calls in a minute; 20 are needed",))
    assert judge(STABLE, Track(), LIMITS).word is Word.TOO_FEW


def test_a_golden_question_that_only_stable_answers_condemns_without_traffic() -> None:
    assert judge(STABLE, Track(), LIMITS, lost_questions=("Where?",)).word is Word.BAD


def test_without_traffic_on_stable_only_failures_are_judged() -> None:
    alone = Track(calls=10, errors=0.005, p95={"query": 3.0}, empty=0.9)
    assert judge(Track(), alone, LIMITS).word is Word.GOOD
    assert judge(Track(), replace(alone, errors=0.02), LIMITS).word is Word.BAD


@given(errors=shares, empty=shares, seconds=st.floats(0, 60))
def test_a_canary_that_is_as_stable_is_never_condemned(errors: float, empty: float, seconds: float) -> None:
    track = Track(calls=5, errors=errors, p95={"query": seconds}, empty=empty)
    assert judge(track, track, LIMITS).word is Word.GOOD


@given(stable=shares, better=shares, worse=shares)
def test_more_failures_never_turn_a_bad_verdict_good(stable: float, better: float, worse: float) -> None:
    low, high = sorted((better, worse))
    before = replace(STABLE, errors=stable)
    if judge(before, replace(STABLE, errors=low), LIMITS).word is Word.BAD:
        assert judge(before, replace(STABLE, errors=high), LIMITS).word is Word.BAD
