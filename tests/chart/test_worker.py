"""Workers, with and without a browser."""

from __future__ import annotations

from tests.chart.render import render


def test_a_worker_has_the_services_and_no_secret_that_speaks_for_others() -> None:
    container = render().container("Deployment", "worker")
    assert [next(iter(one.values()))["name"] for one in container["envFrom"]] == ["shield-config", "shield-services"]
    assert (container["args"], "lifecycle" in container) == (["worker"], False)
    assert render().env("Deployment", "worker")["SHIELD_WORKER_MEMORY"] == "1536MiB"


def test_the_crawler_is_a_worker_on_the_image_with_a_browser() -> None:
    assert "crawler" not in render().names("Deployment")
    rendered = render(values={"crawler": {"enabled": True, "sandbox": "required"}})
    assert rendered.container("Deployment", "crawler")["image"].endswith("/shield-crawler:0.2.0")
    assert rendered.env("Deployment", "crawler")["SHIELD_BROWSER_SANDBOX"] == "required"
    assert "crawler-metrics" in rendered.names("Service")


def test_replicas_are_left_to_whoever_scales() -> None:
    assert render().one("Deployment", "worker")["spec"]["replicas"] == 1
    for kind in ("hpa", "keda"):
        values = {"worker": {"autoscaling": {"type": kind}}, "monitoring": {"prometheusUrl": "http://p:9090"}}
        assert "replicas" not in render(values=values).one("Deployment", "worker")["spec"]


def test_workers_of_production_tolerate_what_they_are_told() -> None:
    assert render("production").pod("Deployment", "worker")["tolerations"] == [{"key": "workers", "operator": "Exists"}]
