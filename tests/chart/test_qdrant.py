"""The small Qdrant of dev."""

from __future__ import annotations

from tests.chart.render import render


def test_its_key_comes_from_the_secret_and_it_writes_only_where_it_may() -> None:
    container = render().container("StatefulSet", "qdrant")
    [key] = [one for one in container["env"] if one["name"] == "QDRANT__SERVICE__API_KEY"]
    assert key["valueFrom"] == {"secretKeyRef": {"name": "shield-stores", "key": "qdrant-api-key"}}
    assert {one["mountPath"] for one in container["volumeMounts"]} == {"/tmp", "/qdrant/storage", "/qdrant/snapshots"}
    assert render().one("Service", "qdrant")["spec"]["ports"][0]["port"] == 6333


def test_a_qdrant_of_your_own_replaces_it() -> None:
    outside = {"qdrant": {"enabled": False}, "external": {"qdrant": {"url": "https://q:6333", "cidrs": ["10.0.0.0/8"]}}}
    rendered = render(values=outside)
    assert "qdrant" not in rendered.names("StatefulSet")
    assert rendered.one("ConfigMap", "config")["data"]["SHIELD_QDRANT_URL"] == "https://q:6333"
