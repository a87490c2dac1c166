"""What Prometheus scrapes, under the names that the rules know."""

from __future__ import annotations

from tests.chart.render import render

JOBS = {"mcp": "shield-mcp", "api": "shield-api", "worker": "shield-worker", "operator": "shield-operator", "probe": "shield-probe"}


def test_every_process_is_scraped_every_15_seconds_under_its_rules_name() -> None:
    rendered = render("production")
    assert rendered.names("ServiceMonitor") == set(JOBS)
    for name, job in JOBS.items():
        spec = rendered.one("ServiceMonitor", name)["spec"]
        [endpoint] = spec["endpoints"]
        assert (endpoint["interval"], endpoint["port"]) == ("15s", "metrics")
        assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": job}]
        assert spec["podTargetLabels"] == ["track"]
        assert "release" in rendered.one("ServiceMonitor", name)["metadata"]["labels"]


def test_each_selects_exactly_one_service_that_has_the_port() -> None:
    rendered = render("canary-static")
    for monitor in rendered.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [service] = [one for one in rendered.of("Service") if wanted <= one["metadata"]["labels"].items()]
        assert [port["name"] for port in service["spec"]["ports"]] == ["metrics"]


def test_the_crawlers_workers_count_as_workers() -> None:
    rendered = render("production", {"crawler": {"enabled": True}})
    assert rendered.one("ServiceMonitor", "crawler")["spec"]["endpoints"][0]["relabelings"][0]["replacement"] == "shield-worker"


def test_none_without_being_asked_for() -> None:
    assert render().of("ServiceMonitor") == []
