"""Alerts in the cluster: what is broken pages, what is mended does not. About eight minutes, most of them the alerts' own patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from kind.waiting import until
from tests.kubernetes.release.installed import Release
from tests.kubernetes.release.traffic import Traffic

Record = Callable[[str, object], None]
TOOL = "list_knowledge_bases"


@pytest.mark.timeout(1200)
def test_an_orchestrator_that_is_gone_pages_and_so_does_the_breaker_in_front_of_it(release: Release, record_property: Record) -> None:
    assert not {"ShieldServiceDown", "ShieldCircuitOpen"} & release.alerts().keys()
    with Traffic(release.target(), 2, TOOL, {}) as traffic:  # somebody must call for the breaker to notice
        release.kubectl("scale", "deployment/shield-api", "--replicas=0")
        began = time.monotonic()
        try:
            for alert in ("ShieldServiceDown", "ShieldCircuitOpen"):
                until(f"{alert} fires", partial(_is, release, alert, "firing"), limit=300, pause=1)
                record_property(f"{alert} fired after, s", round(time.monotonic() - began))
        finally:
            release.kubectl("scale", "deployment/shield-api", "--replicas=1")
        release.kubectl("rollout", "status", "deployment/shield-api", "--timeout=120s", timeout=130)
        back = time.monotonic()
        for alert in ("ShieldServiceDown", "ShieldCircuitOpen"):
            until(f"{alert} is resolved", partial(_is, release, alert, None), limit=300, pause=1)
            record_property(f"{alert} resolved after, s", round(time.monotonic() - back))
    assert traffic.failed  # callers met it, with an error
    assert all("unavailable" in call.fault.lower() or "dependency" in call.fault for call in traffic.failed), {
        each.fault for each in traffic.failed
    }


def _is(release: Release, alert: str, state: str | None) -> bool:
    return release.alerts().get(alert) == state
