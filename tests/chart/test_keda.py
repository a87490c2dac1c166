"""Scaling by how long the oldest job waits."""

from __future__ import annotations

from tests.chart.render import render


def test_both_kinds_of_workers_follow_the_queue_of_their_own_namespace() -> None:
    rendered = render("keda")
    assert rendered.names("ScaledObject") == {"worker", "crawler"}
    spec = rendered.one("ScaledObject", "worker")["spec"]
    [trigger] = spec["triggers"]
    assert trigger["metadata"]["serverAddress"] == "http://prometheus.monitoring:9090"
    assert 'shield_queue_oldest_seconds{namespace="team"}' in trigger["metadata"]["query"]
    assert trigger["metadata"]["query"].endswith("or vector(0)")
    assert (spec["minReplicaCount"], spec["scaleTargetRef"]["name"]) == (0, "shield-worker")
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 60


def test_a_prometheus_that_is_away_leaves_at_least_one_worker() -> None:
    assert render("keda").one("ScaledObject", "worker")["spec"]["fallback"]["replicas"] == 1


def test_no_hpa_beside_it() -> None:
    assert render("keda").of("HorizontalPodAutoscaler") == []
