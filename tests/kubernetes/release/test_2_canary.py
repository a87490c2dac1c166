"""Weights hold over thousands of calls, the forced header always; a bad canary is taken back by itself, a good one is promoted; an upgrade loses no call."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import pytest

from kind.waiting import until
from tests.kubernetes.release.canary import bad_rollout, good_rollout
from tests.kubernetes.release.conftest import VALUES
from tests.kubernetes.release.installed import NEXT, Release
from tests.kubernetes.release.traffic import Target, Traffic

Record = Callable[[str, object], None]
CALLS = 2000
TOOL = "list_knowledge_bases"
RATE = 60.0


@pytest.fixture(scope="module")
def split(release: Release) -> Release:
    """With a canary of the next version that has no traffic yet, and no probe, which would be counted."""
    release.install(*VALUES, "--set", f"canary.mode=static,canary.weight=0,canary.image.tag={NEXT},probe.enabled=false")
    return release


@pytest.mark.parametrize("weight", [10, 50])
def test_calls_are_split_by_weight(split: Release, weight: int, record_property: Record) -> None:
    split.change("--set", f"canary.weight={weight}")
    until("the gateway knows the weight", lambda: _moves(split), limit=30, pause=0.2)
    for calls in (CALLS, 2 * CALLS):
        stable, canary = _called(split, split.target(), calls)
        low, high = interval(calls, weight / 100)
        record_property(f"canary calls of {calls} at {weight} % ({low}..{high})", round(canary))
        print(f"{weight} %: {canary:.0f} of {calls} calls to the canary; 99.9 % interval {low}..{high}")
        assert stable + canary == calls
        if low <= canary <= high:
            return
    pytest.fail("the split missed the interval twice")


def test_the_header_leads_to_the_canary_always(split: Release) -> None:
    split.change("--set", "canary.weight=10")
    stable, canary = _called(split, split.target(x_shield_canary="always"), 300)
    assert (stable, canary) == (0, 300)


def test_a_tool_has_a_weight_of_its_own(split: Release) -> None:
    split.change("--set", f"canary.weight=0,canary.tools.{TOOL}=100")
    until("the gateway knows it", lambda: _called(split, split.target(), 5) == (0, 5), limit=30)
    assert _called(split, split.target(), 200) == (0, 200)  # the client names its tool in a header, as MCP has it since 2026-07-28
    assert _called(split, split.target(), 100, tool="list_jobs") == (100, 0)


def test_no_call_is_lost_while_the_release_is_upgraded(split: Release, record_property: Record) -> None:
    split.install(*VALUES)
    with Traffic(split.target(), 20, TOOL, {}) as traffic:
        split.change("--set-string", f"mcp.podAnnotations.turn={time.time():.0f},api.podAnnotations.turn={time.time():.0f}")
        split.kubectl("rollout", "status", "deployment/shield-mcp", "--timeout=120s", timeout=130)
    record_property("calls during an upgrade", len(traffic.calls))
    assert len(traffic.calls) > 200
    assert traffic.failed == [], split.lost()


@pytest.mark.timeout(900)
def test_a_canary_that_fails_every_call_is_taken_back_by_itself(release: Release, tmp_path: Path, record_property: Record) -> None:
    seen = bad_rollout(release, tmp_path, print)
    record_property("failed calls", seen.failed)
    record_property("bound", round(seen.bound))
    record_property("from the first bad reply to the last, s", round(seen.lasted, 1))
    assert 0 < seen.failed <= seen.bound
    assert seen.after_decision == 0
    assert seen.lasted + 60 < 300
    assert release.pods("mcp-canary") == []


@pytest.mark.timeout(900)
def test_a_good_canary_is_promoted_step_by_step(release: Release, tmp_path: Path, record_property: Record) -> None:
    seen = good_rollout(release, tmp_path, print)
    record_property("calls meanwhile", seen.calls)
    assert seen.weights == [10, 50, 100]
    assert seen.failed == 0
    images = {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in release.pods("mcp")}
    assert images == {NEXT}
    values = json.loads(release.helm("get", "values", "shield", "--output", "json"))
    assert values["canary"]["weight"] == 0


def interval(calls: int, share: float, confidence: float = 0.999) -> tuple[int, int]:
    """Within which a binomial count lies with that confidence (normal approximation; both counts here are far above 5)."""
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(calls * share * (1 - share))
    return math.floor(calls * share - half), math.ceil(calls * share + half)


def _called(release: Release, target: Target, calls: int, tool: str = TOOL) -> tuple[float, float]:
    """How many of so many calls the stable servers and the canary answered."""
    before = [release.answered(track, tool) for track in ("stable", "canary")]
    with Traffic(target, RATE, tool, {}, count=calls) as traffic:
        traffic.wait(calls / RATE * 4 + 60)
    assert traffic.failed == []
    assert len(traffic.calls) == calls
    after = [release.answered(track, tool) for track in ("stable", "canary")]
    return after[0] - before[0], after[1] - before[1]


def _moves(release: Release) -> bool:
    return _called(release, release.target(), 40)[1] > 0
