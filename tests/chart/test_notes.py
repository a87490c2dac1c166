"""What a person reads after an installation."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from kind.binaries import binary
from kind.control_plane import ControlPlane
from tests.chart.render import CHART


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane"), controllers=False) as plane:
        yield plane


def notes(plane: ControlPlane, flavour: str) -> str:
    command = [str(binary("helm")), "install", "shield", str(CHART), "-n", "default", "-f", str(CHART / "ci" / f"{flavour}-values.yaml")]
    more = ["--set", "monitoring.disableAPICheck=true", "--dry-run=client", "--kubeconfig", str(plane.kubeconfig)]
    said = subprocess.run([*command, *more], capture_output=True, text=True, timeout=120, check=True).stdout
    return said[said.index("NOTES:") :]


def test_they_name_the_next_commands(plane: ControlPlane) -> None:
    said = notes(plane, "dev")
    assert "helm test shield -n default" in said
    assert "kubectl get secret shield-keys -n default" in said
    assert "kubectl port-forward -n default service/shield-mcp 8000" in said
    assert "one copy of everything" in said


def test_they_know_the_public_address_and_the_canary(plane: ControlPlane) -> None:
    assert "https://shield.example.com/mcp" in notes(plane, "oidc-ingress")
    assert "Canary: 10 % of MCP traffic" in notes(plane, "canary-static")
    assert "keys" not in notes(plane, "oidc-ingress")
