"""Flagger once for real: it takes the MCP server over, shifts traffic to a new version by its own judgement, and promotes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kind.waiting import until
from tests.kubernetes.release.addons import MONITORING, Addons
from tests.kubernetes.release.installed import NEXT, Release
from tests.kubernetes.release.traffic import Traffic

Record = Callable[[str, object], None]
TOOL = "list_knowledge_bases"


@pytest.mark.timeout(900)
def test_flagger_promotes_a_version_that_works(release: Release, record_property: Record) -> None:
    prometheus = f"http://prometheus.{MONITORING}.svc:9090"
    Addons(release.cluster.kubectl, release.cluster.addresses.registry).flagger(prometheus)
    judged = "interval=10s,canary.flagger.stepWeight=25,canary.flagger.maxWeight=50,canary.flagger.threshold=3"
    release.change("--set", f"canary.mode=flagger,canary.weight=0,canary.flagger.prometheusUrl={prometheus},canary.flagger.{judged}")
    try:
        until("Flagger has taken it over", lambda: _phase(release) == "Initialized", limit=240, pause=1)
        with Traffic(release.target(), 10, TOOL, {}) as traffic:
            release.change("--set", f"images.server.tag={NEXT}")
            weights = set()

            def ended() -> bool:
                weights.add(release.get("canary.flagger.app", "shield-mcp")["status"].get("canaryWeight", 0))
                return _phase(release) in {"Succeeded", "Failed"}

            until("Flagger has judged it", ended, limit=300, pause=1)
        assert _phase(release) == "Succeeded"
        assert {25, 50} <= weights
        record_property("calls meanwhile", len(traffic.calls))
        assert traffic.failed == []
        primary = release.get("deployment", "shield-mcp-primary")["spec"]["template"]["spec"]["containers"][0]["image"]
        assert primary.endswith(f":{NEXT}")
    finally:
        release.change("--set", "canary.mode=none,images.server.tag=")


def _phase(release: Release) -> str:
    return str(release.get("canary.flagger.app", "shield-mcp").get("status", {}).get("phase", ""))
