"""The verdict on a canary: a function of what was measured on both tracks, without clock or network.

Four measures, each against the stable track with a margin, so that a dependency that hurts both condemns neither: the share of calls that failed by our
fault, the p95 of each class of tools, the share of searches that found nothing, and golden questions. Too few calls are no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Word(StrEnum):
    """What follows."""

    GOOD = "good"
    BAD = "bad"
    TOO_FEW = "too few calls"


@dataclass(frozen=True)
class Track:
    """What the recording rules say of one track; None is no series, which means no traffic of that kind."""

    calls: float | None = None
    """Calls a second over the last minute."""
    errors: float | None = None
    """Share that failed by our fault, 0 to 1."""
    p95: Mapping[str, float] = field(default_factory=dict)
    """Seconds, by class of tools."""
    empty: float | None = None
    """Share of searches that found nothing, 0 to 1."""


@dataclass(frozen=True)
class Limits:
    """How much worse a canary may be."""

    min_calls: int = 20
    """Calls of the canary in a minute, below which nothing is concluded."""
    errors: float = 0.01
    """Added to the stable track's share of failed calls."""
    latency_factor: float = 1.5
    """Times the stable track's p95 ..."""
    latency_margin: float = 0.1
    """... plus this many seconds."""
    empty: float = 0.1
    """Added to the stable track's share of empty searches."""


@dataclass(frozen=True)
class Verdict:
    """A word, and why in sentences."""

    word: Word
    reasons: tuple[str, ...]


def judge(stable: Track, canary: Track, limits: Limits, *, lost_questions: tuple[str, ...] = ()) -> Verdict:
    """Judge a canary.

    Args:
        stable: the servers that serve today.
        canary: the new ones.
        limits: how much worse they may be.
        lost_questions: golden questions whose answer stable finds and the canary does not; each condemns it, with or without traffic.
    """
    reasons = [f"does not find what stable finds: {question}" for question in lost_questions]
    in_a_minute = (canary.calls or 0) * 60
    if in_a_minute < limits.min_calls:
        if reasons:
            return Verdict(Word.BAD, tuple(reasons))
        return Verdict(Word.TOO_FEW, (f"{in_a_minute:.0f} calls in a minute; {limits.min_calls} are needed",))
    if canary.errors is not None and canary.errors > (bound := (stable.errors or 0) + limits.errors):
        reasons.append(f"{canary.errors:.1%} of calls fail by our fault; stable {_share(stable.errors)}, bound {bound:.1%}")
    for name, seconds in sorted(canary.p95.items()):
        usual = stable.p95.get(name)
        if usual is not None and seconds > (bound := usual * limits.latency_factor + limits.latency_margin):
            reasons.append(f"p95 of {name} tools is {seconds:.2f} s; stable {usual:.2f} s, bound {bound:.2f} s")
    if canary.empty is not None and stable.empty is not None and canary.empty > (bound := stable.empty + limits.empty):
        reasons.append(f"{canary.empty:.0%} of searches find nothing; stable {stable.empty:.0%}, bound {bound:.0%}")
    if reasons:
        return Verdict(Word.BAD, tuple(reasons))
    return Verdict(Word.GOOD, (f"{in_a_minute:.0f} calls in a minute, {_share(canary.errors)} failed; stable {_share(stable.errors)}",))


def _share(value: float | None) -> str:
    return "no traffic" if value is None else f"{value:.1%}"
