"""`helm test`."""

from __future__ import annotations

import typer

from shield.cli import smoke
from shield.cli.app import app
from tests.chart.render import render

smoke.register(app)


def test_it_runs_the_smoke_test_with_a_key_of_its_own() -> None:
    container = render().container("Pod", "smoke")
    assert container["args"][:2] == ["smoke", "http://shield-mcp.team.svc:8000/mcp"]
    assert container["args"][-2:] == ["--key-file", "/etc/shield/smoke/smoke"]
    assert render().one("Pod", "smoke")["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_the_command_takes_these_arguments() -> None:
    for values in ({}, {"auth": {"mode": "none"}}):
        arguments = render(values=values).container("Pod", "smoke")["args"]
        command = typer.main.get_command(app).commands["smoke"]  # type: ignore[attr-defined]
        assert command.make_context("smoke", [*arguments[1:]]).params["within"] == 150


def test_the_clock_of_the_command_ends_before_that_of_the_pod() -> None:
    pod = render().one("Pod", "smoke")["spec"]
    arguments = render().container("Pod", "smoke")["args"]
    assert int(arguments[arguments.index("--within") + 1]) + 20 < pod["activeDeadlineSeconds"]
    assert pod["restartPolicy"] == "Never"
