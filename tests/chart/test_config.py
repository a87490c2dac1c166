"""The settings that all processes share."""

from __future__ import annotations

from typing import Any

import pytest

from shield.auth.hosts import HostPolicy
from shield.settings import load
from tests.chart.render import FLAVOURS, render


def data(flavour: str = "dev", **values: Any) -> dict[str, str]:
    found: dict[str, str] = render(flavour, values).one("ConfigMap", "config")["data"]
    return found


def test_it_is_a_configuration_that_shield_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for flavour in FLAVOURS:
        for name, value in data(flavour).items():
            monkeypatch.setenv(name, value)
        settings = load(mode="server", postgres={"dsn": "postgresql://x/y"}, redis={"url": "redis://x"}, auth={"hop_secret": "x" * 40})
        HostPolicy.of(settings)
        for name in data(flavour):
            monkeypatch.delenv(name)


def test_the_services_names_and_the_public_host_are_served() -> None:
    hosts = data("production")["SHIELD_ALLOWED_HOSTS"].split(",")
    assert {"shield-mcp", "shield-mcp.team.svc", "shield-api.team.svc.cluster.local", "shield-mcp-canary"} <= set(hosts)
    assert data("production")["SHIELD_PUBLIC_URL"] == "https://shield.example.com"


def test_retention_is_said_in_days_and_hours() -> None:
    found = data(retention={"jobsDays": 90, "idempotencyDays": 1, "uploadsHours": 2, "cacheDays": 3})
    assert found["SHIELD_JOBS_RETENTION"] == str(90 * 86400)
    assert found["SHIELD_JOBS_IDEMPOTENCY_KEEP"] == "86400"
    assert found["SHIELD_FILE_UPLOAD_TTL"] == "7200"
    assert found["SHIELD_LIBRARY_CACHE_KEEP"] == str(3 * 86400)


def test_more_settings_win_and_become_text() -> None:
    assert data("oidc-ingress")["SHIELD_CRAWL_CONCURRENCY"] == "4"
    assert data(config={"SHIELD_LOG_LEVEL": "debug"})["SHIELD_LOG_LEVEL"] == "debug"


def test_large_numbers_stay_numbers() -> None:
    assert data(embedding={"dimension": 1000000})["SHIELD_EMBEDDING_DIM"] == "1000000"


def test_an_open_server_says_so_twice() -> None:
    assert "SHIELD_AUTH_ALLOW_OPEN" not in data()
    assert data(auth={"mode": "none"})["SHIELD_AUTH_ALLOW_OPEN"] == "true"
