"""Scaling by CPU."""

from __future__ import annotations

from tests.chart.render import render


def test_the_servers_are_scaled_by_cpu_and_say_no_replicas() -> None:
    rendered = render("production")
    assert rendered.names("HorizontalPodAutoscaler") == {"mcp", "worker"}
    spec = rendered.one("HorizontalPodAutoscaler", "mcp")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"], spec["scaleTargetRef"]["name"]) == (3, 9, "shield-mcp")
    assert "replicas" not in rendered.one("Deployment", "worker")["spec"]


def test_none_without_being_asked_for_nor_for_a_crawler_that_does_not_run() -> None:
    assert render(values={"crawler": {"autoscaling": {"type": "hpa"}}}).of("HorizontalPodAutoscaler") == []


def test_behaviour_is_passed_on_and_zero_is_no_size_for_an_hpa() -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 5}}
    rendered = render(values={"worker": {"autoscaling": {"type": "hpa", "minReplicas": 0, "behavior": behavior}}})
    spec = rendered.one("HorizontalPodAutoscaler", "worker")["spec"]
    assert (spec["minReplicas"], spec["behavior"]) == (1, behavior)
