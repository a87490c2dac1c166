"""Two rollouts under traffic, seen from the gateway: one of a version that works, and one that fails every call."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.kubernetes.release.installed import BROKEN, NEXT, Release, rollout_arguments, shield, wait
from tests.kubernetes.release.traffic import Traffic

RATE = 20.0
"""Calls a second."""
INTERVAL, SCRAPE, MARGIN = 15.0, 5.0, 10.0
"""Seconds: between two verdicts, between two scrapes (as the tests install it), and for what the gateway and Helm take."""
WEIGHT = 10
TOOL = "list_knowledge_bases"
TAKEN_BACK = 13
"""Exit code of `shield rollout`."""


@dataclass(frozen=True)
class Seen:
    """What the callers met."""

    calls: int
    failed: int
    bound: float
    """Most calls that may fail before the canary is judged twice."""
    lasted: float
    """Seconds from the first bad reply to the last."""
    after_decision: int
    """Failed calls that began more than the margin after the rollout was over."""
    weights: list[int]
    """Steps that were taken."""


def bad_rollout(release: Release, directory: Path, say: Callable[[str], None]) -> Seen:
    """Roll out the version that fails every call."""
    return _rollout(release, directory, say, BROKEN, expected=TAKEN_BACK, hold=60)


def good_rollout(release: Release, directory: Path, say: Callable[[str], None]) -> Seen:
    """Roll out the version that works."""
    return _rollout(release, directory, say, NEXT, expected=0, hold=20)


def _rollout(release: Release, directory: Path, say: Callable[[str], None], tag: str, *, expected: int, hold: float) -> Seen:
    log = directory / "rollout.log"
    with Traffic(release.target(), RATE, TOOL, {}) as traffic:
        traffic.wait_for_calls(int(RATE) * 5)
        with shield(release, *rollout_arguments(release, tag, interval=INTERVAL, hold=hold), log=log) as process:
            code = wait(process, 600, log)
        over = traffic.now()
        traffic.pause(MARGIN + 10)
    for line in log.read_text(encoding="utf-8").splitlines():
        say(line)
    if code != expected:
        raise AssertionError(f"shield rollout ended with {code}:\n{log.read_text(encoding='utf-8')}")
    journal = [json.loads(line) for line in (directory / "rollout.jsonl").read_text(encoding="utf-8").splitlines()]
    bad = traffic.failed
    seen = Seen(
        calls=len(traffic.calls),
        failed=len(bad),
        bound=RATE * WEIGHT / 100 * (2 * INTERVAL + SCRAPE + MARGIN),
        lasted=max(call.ended for call in bad) - min(call.began for call in bad) if bad else 0.0,
        after_decision=sum(call.began > over for call in bad),
        weights=[entry["weight"] for entry in journal if entry["event"] == "weight"],
    )
    say(f"{seen.calls} calls, {seen.failed} failed (bound {seen.bound:.0f}), {seen.lasted:.1f} s from the first to the last, "
        f"{seen.after_decision} after the decision; weights {seen.weights}")  # fmt: skip
    return seen
