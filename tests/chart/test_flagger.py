"""Flagger: the chart renders nothing that Flagger makes or scales."""

from __future__ import annotations

from tests.chart.render import render


def test_the_canary_names_deployment_autoscaler_gateway_and_host() -> None:
    spec = render("canary-flagger").one("Canary", "mcp")["spec"]
    assert spec["targetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shield-mcp"}
    assert spec["autoscalerRef"]["name"] == "shield-mcp"
    assert spec["service"]["hosts"] == ["shield.example.com"]
    assert spec["service"]["gatewayRefs"] == [{"name": "public", "namespace": "gateways"}]
    assert "autoscalerRef" not in render("canary-flagger", {"mcp": {"autoscaling": {"enabled": False}}}).one("Canary", "mcp")["spec"]


def test_services_route_and_replicas_are_left_to_flagger() -> None:
    rendered = render("canary-flagger")
    assert "mcp" not in rendered.names("Service")
    assert rendered.names("HTTPRoute") == {"api"}
    assert "replicas" not in rendered.one("Deployment", "mcp")["spec"]
    assert "mcp-canary" not in rendered.names("Deployment")


def test_the_first_selector_label_that_flagger_knows_is_unique_to_the_server() -> None:
    """Flagger renames `app` for its primary and leaves the others, by which policies, budgets and metrics find the pods."""
    labels = render("canary-flagger").one("Deployment", "mcp")["spec"]["selector"]["matchLabels"]
    assert labels["app"] == "shield-mcp"
    assert labels["app.kubernetes.io/component"] == "mcp"


def test_each_query_answers_zero_without_traffic_and_counts_only_our_fault() -> None:
    rendered = render("canary-flagger")
    assert {one["templateRef"]["name"] for one in rendered.one("Canary", "mcp")["spec"]["analysis"]["metrics"]} == {
        one["metadata"]["name"] for one in rendered.of("MetricTemplate")
    }
    for template in rendered.of("MetricTemplate"):
        query = template["spec"]["query"]
        assert query.endswith("or vector(0)")
        assert 'namespace="team"' in query
        assert "{{ target }}" in query
    assert 'fault=~"dependency|server"' in rendered.one("MetricTemplate", "mcp-errors")["spec"]["query"]


def test_nothing_of_it_in_other_modes() -> None:
    assert render("canary-static").of("Canary") == render().of("MetricTemplate") == []
