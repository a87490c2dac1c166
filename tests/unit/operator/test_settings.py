"""Settings, quantities and the command line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shield_operator import __version__
from shield_operator.main import main
from shield_operator.metrics import Metrics
from shield_operator.quantity import parse_quantity
from shield_operator.settings import ConfigurationError, Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORKER_IMAGE", "LEASE_NAMESPACE", "NAMESPACES"):
        monkeypatch.delenv(f"SHIELD_OPERATOR_{name}", raising=False)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", "0.5"),
        (2, "2"),
        ("4Gi", str(4 * 2**30)),
        ("1e3", "1000"),
        ("2E", "2e18"),
        ("1.5k", "1500"),
        (".5", "0.5"),
        ("+1u", "1e-6"),
        ("1E2", "100"),
    ],
)
def test_a_quantity_is_a_number(text: str | int, number: str) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "-1", "1 Gi", "Gi", "1GiB", "1e", "0x1", "1e999"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    "given", [{"renew_deadline": 15}, {"retry_period": 11}, {"request_timeout": 6}, {"max_cpu": "many"}, {"workers": 0}, {"resync": 0}]
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**given)


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_two_processes_have_two_identities() -> None:
    assert Settings().identity != Settings().identity


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELD_OPERATOR_NAMESPACES", '["a", "b"]')
    monkeypatch.setenv("SHIELD_OPERATOR_RESYNC", "7.5")
    assert (Settings().namespaces, Settings().resync) == (("a", "b"), 7.5)


def test_outside_a_pod_the_leases_namespace_must_be_named() -> None:
    with pytest.raises(ConfigurationError, match="LEASE_NAMESPACE"):
        Settings().own_namespace()
    assert Settings(lease_namespace="shield").own_namespace() == "shield"


class TestCommand:
    def test_help_and_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        for argument, shown in (("--help", "run"), ("--version", __version__)):
            with pytest.raises(SystemExit) as ended:
                main([argument])
            assert ended.value.code == 0
            assert shown in capsys.readouterr().out

    def test_a_wrong_setting_is_named_with_its_variable(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("SHIELD_OPERATOR_WORKERS", "none")
        assert main(["run"]) == 2
        assert "SHIELD_OPERATOR_WORKERS" in capsys.readouterr().err

    def test_without_an_image_it_says_so_and_ends(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = tmp_path / "kubeconfig"
        config.write_text(KUBECONFIG)
        monkeypatch.setenv("SHIELD_OPERATOR_KUBECONFIG", str(config))
        monkeypatch.setenv("SHIELD_OPERATOR_LEASE_NAMESPACE", "shield")
        assert main(["run", "--namespace", "team"]) == 2
        assert "SHIELD_OPERATOR_WORKER_IMAGE" in capsys.readouterr().err


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def test_the_guide_has_every_setting_and_every_metric() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "OPERATOR.md").read_text(encoding="utf-8")
    settings = {f"| `SHIELD_OPERATOR_{name.upper()}` |": field.description or "" for name, field in Settings.model_fields.items()}
    assert [name for name, text in settings.items() if not any(name in line and text in line for line in guide.splitlines())] == []
    metrics = [family.name for family in Metrics().registry.collect()]
    assert [name for name in metrics if f"| `{name}" not in guide] == []
