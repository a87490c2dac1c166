"""Grafana's dashboards as ConfigMaps for its sidecar."""

from __future__ import annotations

from tests.chart.render import CHART, render


def test_each_generated_dashboard_is_one_configmap_with_the_sidecars_label() -> None:
    files = sorted((CHART / "files" / "monitoring").glob("*.json"))
    found = {one["metadata"]["name"]: one for one in render("production").of("ConfigMap") if "dashboard" in one["metadata"]["name"]}
    assert set(found) == {f"shield-dashboard-{path.stem}" for path in files}
    for path in files:
        one = found[f"shield-dashboard-{path.stem}"]
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert one["data"] == {f"shield-{path.stem}.json": path.read_text(encoding="utf-8")}


def test_none_without_being_asked_for() -> None:
    assert not [one for one in render().of("ConfigMap") if "dashboard" in one["metadata"]["name"]]
