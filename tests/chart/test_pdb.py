"""Disruption budgets, where there is something to spare."""

from __future__ import annotations

from tests.chart.render import render


def test_whoever_has_more_than_one_replica_has_a_budget() -> None:
    assert render("production").names("PodDisruptionBudget") == {"mcp", "api", "worker", "operator"}
    assert render().names("PodDisruptionBudget") == {"operator"}
    assert render("umbrella").of("PodDisruptionBudget") == []


def test_a_sick_pod_never_blocks_a_drain() -> None:
    for one in render("production").of("PodDisruptionBudget"):
        assert one["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert one["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in one["spec"]


def test_the_budget_of_the_mcp_server_is_for_both_colours() -> None:
    assert "track" not in render("canary-static").one("PodDisruptionBudget", "mcp")["spec"]["selector"]["matchLabels"]
