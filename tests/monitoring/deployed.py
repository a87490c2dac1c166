"""The rules as the chart deploys them: rendered by Helm, taken out of its PrometheusRules."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.monitoring.cases import NAMESPACE

ROOT = Path(__file__).parents[2]
_VALUES = ("monitoring.rules.enabled=true", "monitoring.serviceMonitors.enabled=true", "monitoring.disableAPICheck=true")
_LIMIT = 60  # seconds


def rendered(helm: Path) -> list[dict[str, Any]]:
    """Every object of the chart with monitoring switched on, in the namespace of the cases.

    Raises:
        AssertionError: the chart does not render; the message is Helm's.
    """
    command = [str(helm), "template", "shield", str(ROOT / "charts/shield"), "--namespace", NAMESPACE]
    for value in _VALUES:
        command += ["--set", value]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def rules_of(objects: list[dict[str, Any]]) -> str:
    """A file of rules from their PrometheusRules."""
    groups = [group for item in objects if item["kind"] == "PrometheusRule" for group in item["spec"]["groups"]]
    return yaml.safe_dump({"groups": groups}, sort_keys=False, width=10_000)


def jobs_of(objects: list[dict[str, Any]]) -> set[str]:
    """What the scraped processes are called, by its ServiceMonitors."""
    monitors = [item for item in objects if item["kind"] == "ServiceMonitor"]
    relabelings = [change for item in monitors for endpoint in item["spec"]["endpoints"] for change in endpoint["relabelings"]]
    return {change["replacement"] for change in relabelings if change["targetLabel"] == "job"}
