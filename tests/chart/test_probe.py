"""The synthetic probe."""

from __future__ import annotations

from pathlib import Path

import pytest

from shield.settings import load
from tests.chart.render import render


def test_it_asks_the_mcp_server_with_a_key_that_may_only_read() -> None:
    env = render().env("Deployment", "probe")
    assert env["SHIELD_PROBE_URL"] == "http://shield-mcp.team.svc:8000/mcp"
    assert env["SHIELD_PROBE_API_KEY_FILE"] == "/etc/shield/probe/probe"
    assert "envFrom" not in render().container("Deployment", "probe")
    arguments = next(one for one in render().of("Job") if "migrate" in one["metadata"]["name"])["spec"]["template"]["spec"]["containers"][
        0
    ]["args"]
    assert arguments[arguments.index("--reader") + 1] == "/etc/shield/keys/probe"


def test_its_settings_are_those_of_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("shk_x")
    for name, value in render().env("Deployment", "probe").items():
        monkeypatch.setenv(name, str(tmp_path / "key") if name.endswith("_FILE") else value)
    settings = load()
    assert settings.probe.interval.total_seconds() == 30
    assert settings.probe.knowledge_base == "default"


def test_without_keys_it_shows_none_and_it_may_be_left_out() -> None:
    assert "SHIELD_PROBE_API_KEY_FILE" not in render(values={"auth": {"mode": "none"}}).env("Deployment", "probe")
    assert "probe" not in render("oidc-ingress").names("Deployment")
