"""A plain Ingress, where there is no Gateway."""

from __future__ import annotations

from tests.chart.render import render


def test_mcp_and_the_rest_under_the_public_host_with_tls() -> None:
    spec = render("oidc-ingress").one("Ingress", "shield")["spec"]
    assert (spec["ingressClassName"], spec["tls"]) == ("nginx", [{"hosts": ["shield.example.com"], "secretName": "shield-tls"}])
    [rule] = spec["rules"]
    assert {one["path"]: one["backend"]["service"]["name"] for one in rule["http"]["paths"]} == {
        "/mcp": "shield-mcp",
        "/.well-known/oauth-protected-resource/mcp": "shield-mcp",
        "/": "shield-api",
    }


def test_the_rest_may_stay_inside_and_more_hosts_may_be_routed() -> None:
    spec = render("oidc-ingress", {"ingress": {"exposeApi": False, "hostnames": ["other.example.com"]}}).one("Ingress", "shield")["spec"]
    assert [rule["host"] for rule in spec["rules"]] == ["shield.example.com", "other.example.com"]
    assert "/" not in {one["path"] for one in spec["rules"][0]["http"]["paths"]}


def test_none_without_being_asked_for() -> None:
    assert render().of("Ingress") == []
