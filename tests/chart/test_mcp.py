"""The MCP server: no credential of a database, and a colour for each of its versions."""

from __future__ import annotations

from tests.chart.render import render


def test_it_knows_the_orchestrator_and_no_store() -> None:
    container = render().container("Deployment", "mcp")
    assert [next(iter(one.values()))["name"] for one in container["envFrom"]] == ["shield-config", "shield-auth"]
    assert render().env("Deployment", "mcp") == {"SHIELD_ORCHESTRATOR_URL": "http://shield-api.team.svc:8001"}


def test_the_service_leads_to_the_stable_colour_only() -> None:
    rendered = render("canary-static")
    assert rendered.one("Service", "mcp")["spec"]["selector"]["track"] == "stable"
    assert rendered.one("Service", "mcp-canary")["spec"]["selector"]["track"] == "canary"
    for name, track in (("mcp", "stable"), ("mcp-canary", "canary")):
        deployment = rendered.one("Deployment", name)["spec"]
        assert deployment["selector"]["matchLabels"]["track"] == track
        assert deployment["template"]["metadata"]["labels"]["track"] == track
        assert deployment["template"]["metadata"]["labels"]["app"] == f"shield-{name}"


def test_the_canary_differs_by_its_image_and_environment_alone() -> None:
    rendered = render("canary-static", {"canary": {"env": [{"name": "SHIELD_LOG_LEVEL", "value": "debug"}]}})
    stable, canary = (rendered.container("Deployment", name) for name in ("mcp", "mcp-canary"))
    assert (stable["image"].rpartition(":")[2], canary["image"].rpartition(":")[2]) == ("0.2.0", "0.3.0")
    assert canary["env"][-1] == {"name": "SHIELD_LOG_LEVEL", "value": "debug"}
    assert {**stable, "image": "", "env": stable["env"]} == {**canary, "image": "", "env": canary["env"][:-1]}


def test_a_stable_image_that_is_pinned_by_digest_does_not_pin_the_canary() -> None:
    values = {"images": {"server": {"digest": "sha256:aa"}}}
    assert render("canary-static", values).container("Deployment", "mcp")["image"].endswith("@sha256:aa")
    assert render("canary-static", values).container("Deployment", "mcp-canary")["image"].endswith(":0.3.0")


def test_replicas_are_said_only_where_nobody_else_says_them() -> None:
    assert render().one("Deployment", "mcp")["spec"]["replicas"] == 1
    assert render(values={"mcp": {"replicas": 0}}).one("Deployment", "mcp")["spec"]["replicas"] == 0
    assert "replicas" not in render("production").one("Deployment", "mcp")["spec"]
    assert "replicas" not in render("canary-flagger", {"mcp": {"autoscaling": {"enabled": False}}}).one("Deployment", "mcp")["spec"]


def test_prometheus_scrapes_all_pods_of_both_colours() -> None:
    service = render("canary-static").one("Service", "mcp-metrics")["spec"]
    assert "track" not in service["selector"]
    assert service["publishNotReadyAddresses"] is True
