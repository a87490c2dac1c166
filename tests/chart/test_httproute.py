"""The route, judged as a gateway judges it: longest path, then most headers, then the rule's place."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.render import render


def backends(flavour: str, path: str, headers: dict[str, str] | None = None, **values: Any) -> dict[str, int]:
    """Weights by Service of the rule that takes a request."""
    given = {name.lower(): value for name, value in (headers or {}).items()}
    best: tuple[tuple[int, int, int], dict[str, int]] | None = None
    for number, rule in enumerate(render(flavour, values).one("HTTPRoute", "shield")["spec"]["rules"]):
        for match in rule["matches"]:
            prefix = match["path"]["value"]
            wanted = {one["name"].lower(): one["value"] for one in match.get("headers", ())}
            inside = path == prefix or path.startswith(prefix.rstrip("/") + "/")
            if inside and all(given.get(name) == value for name, value in wanted.items()):
                rank = (len(prefix), len(wanted), -number)
                if best is None or rank > best[0]:
                    best = rank, {one["name"]: one.get("weight", 1) for one in rule["backendRefs"]}
    return best[1] if best else {}


CALL = {"Mcp-Method": "tools/call", "Mcp-Name": "crawl_web"}
OTHER = {"Mcp-Method": "tools/call", "Mcp-Name": "qdrant_find"}
ALWAYS = {"x-shield-canary": "always"}


def test_without_a_canary_mcp_goes_to_the_server_and_the_rest_to_the_orchestrator() -> None:
    assert backends("production", "/mcp") == {"shield-mcp": 1}
    assert backends("production", "/.well-known/oauth-protected-resource/mcp") == {"shield-mcp": 1}
    assert backends("production", "/jobs/1") == {"shield-api": 1}
    assert backends("production", "/mcpx") == {"shield-api": 1}
    assert backends("production", "/jobs/1", gateway={"exposeApi": False}) == {}


@pytest.mark.parametrize(
    ("headers", "weights"),
    [
        ({}, {"shield-mcp": 90, "shield-mcp-canary": 10}),
        (OTHER, {"shield-mcp": 90, "shield-mcp-canary": 10}),
        (CALL, {"shield-mcp": 50, "shield-mcp-canary": 50}),
        (ALWAYS, {"shield-mcp-canary": 1}),
        (ALWAYS | OTHER, {"shield-mcp-canary": 1}),
        (ALWAYS | CALL, {"shield-mcp-canary": 1}),
        ({"x-shield-canary": "never"}, {"shield-mcp": 90, "shield-mcp-canary": 10}),
    ],
)
def test_static_weights_a_tools_own_and_the_forced_canary(headers: dict[str, str], weights: dict[str, int]) -> None:
    assert backends("canary-static", "/mcp", headers) == weights


@pytest.mark.parametrize("weight", [0, 100])
def test_the_ends_of_a_rollout(weight: int) -> None:
    assert backends("canary-static", "/mcp", canary={"weight": weight}) == {"shield-mcp": 100 - weight, "shield-mcp-canary": weight}


def test_hosts_parents_and_time_limit() -> None:
    spec = render("production").one("HTTPRoute", "shield")["spec"]
    assert spec["hostnames"] == ["shield.example.com"]
    assert spec["parentRefs"] == [{"name": "public", "namespace": "gateways"}]
    assert spec["rules"][0]["timeouts"] == {"request": "70s"}
    assert "timeouts" not in render("production", {"gateway": {"timeout": ""}}).one("HTTPRoute", "shield")["spec"]["rules"][0]


def test_no_route_without_a_gateway() -> None:
    assert render().of("HTTPRoute") == []
