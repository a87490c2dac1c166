"""Upgrades and rollbacks: autoscaling by real metrics, both Helm versions, a canary that stays, and a schema that has grown meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kind.waiting import until
from shield.database.migrate import HEAD
from tests.kubernetes.release.addons import Addons
from tests.kubernetes.release.installed import GROWN, NEXT, Release
from tests.kubernetes.release.traffic import Traffic

Record = Callable[[str, object], None]
TOOL = "list_knowledge_bases"
BEHAVIOUR = {"scaleUp": {"stabilizationWindowSeconds": 0}, "scaleDown": {"stabilizationWindowSeconds": 5}}


@pytest.fixture(scope="module")
def measured(release: Release) -> Release:
    """With metrics of pods."""
    Addons(release.cluster.kubectl, release.cluster.addresses.registry).metrics()
    return release


def test_servers_are_scaled_by_what_they_use(measured: Release) -> None:
    scaling = {"enabled": True, "minReplicas": 1, "maxReplicas": 2, "targetCPU": 20, "behavior": BEHAVIOUR}
    measured.change("--set-json", f"mcp.autoscaling={json.dumps(scaling)}")
    with Traffic(measured.target(), 20, TOOL, {}) as traffic:
        until(
            "a second server was added for the load",
            lambda: measured.get("deployment", "shield-mcp")["spec"]["replicas"] == 2,
            limit=180,
            pause=1,
        )
    assert traffic.failed == []


@pytest.mark.parametrize("helm", ["helm3", "helm"])
def test_an_upgrade_leaves_replicas_to_the_autoscaler_and_weights_as_they_are(measured: Release, helm: str) -> None:
    measured.change("--set", f"canary.mode=static,canary.weight=10,canary.image.tag={NEXT}")
    replicas = measured.get("deployment", "shield-mcp")["spec"]["replicas"]
    release = Release(measured.cluster, measured.gateway, measured.prometheus, helm)
    with Traffic(release.target(), 10, TOOL, {}) as traffic:
        release.change("--set-string", f"mcp.podAnnotations.by={helm}")
    assert traffic.failed == []
    assert abs(measured.get("deployment", "shield-mcp")["spec"]["replicas"] - replicas) <= 1
    backends = measured.get("httproute", "shield")["spec"]["rules"][-2]["backendRefs"]
    assert {(item["name"], item["weight"]) for item in backends} == {("shield-mcp", 90), ("shield-mcp-canary", 10)}


def test_a_stable_server_that_restarts_in_mid_canary_starts(measured: Release) -> None:
    measured.kubectl("delete", "pod", "-l", "app.kubernetes.io/component=mcp,track!=canary", timeout=120)
    measured.kubectl("rollout", "status", "deployment/shield-mcp", "--timeout=120s", timeout=130)


@pytest.mark.timeout(900)
def test_a_rollback_after_a_migration_works(measured: Release) -> None:
    before = json.loads(measured.helm("history", "shield", "-o", "json"))[-1]["revision"]
    assert measured.schema() == HEAD
    measured.change("--set", f"canary.mode=none,canary.weight=0,images.server.tag={GROWN}")
    assert measured.schema() == "9999"
    measured.helm("rollback", "shield", str(before), "--wait", "--timeout", "5m")
    assert measured.schema() == "9999"
    assert "it works" in measured.helm("test", "shield", "--logs")  # ingests, finds and deletes, by the old version on the new schema
    measured.kubectl("delete", "pod", "-l", "app.kubernetes.io/component in (api,worker,mcp)", timeout=120)
    for name in ("shield-api", "shield-worker", "shield-mcp"):
        measured.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s", timeout=130)
