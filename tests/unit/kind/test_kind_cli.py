"""The commands that `kind` is given; `kind` is a small program here that writes down what it was told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kind.__main__ import main
from kind.console import silent
from kind.errors import KindError, PrerequisiteMissing
from kind.kind_cli import CONFIGURATION, KindCli
from kind.settings import KindSettings
from kind.status import State

FAKE_KIND = """#!/bin/sh
echo "$@" >> {log}
case "$1 $2" in
  "get clusters") cat {clusters} 2>/dev/null; true ;;
  "create cluster") if [ -e {broken} ]; then echo "no space left" >&2; exit 1; fi; echo "$4" >> {clusters} ;;
  "delete cluster") rm -f {clusters} ;;
esac
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the fake writes what it was told."""
    programs = tmp_path / "programs"
    programs.mkdir()
    log = tmp_path / "log"
    fake = FAKE_KIND.format(log=log, clusters=tmp_path / "clusters", broken=tmp_path / "broken")
    for name, content in (("kind", fake), ("docker", "#!/bin/sh\n")):
        (programs / name).write_text(content, encoding="utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("SHIELD_KIND_STATE", str(tmp_path / "state"))
    return log


def said(log: Path) -> list[str]:
    return [line for line in log.read_text(encoding="utf-8").splitlines() if not line.startswith("get")]


def test_up_creates_once_with_our_configuration_and_a_kubeconfig_of_its_own(commands: Path, tmp_path: Path) -> None:
    assert main(["up", "--provider", "kind"]) == 0
    assert main(["up", "--provider", "kind"]) == 0
    kubeconfig = tmp_path / "state" / "shield.docker.kubeconfig"
    assert said(commands) == [
        f"create cluster --name shield --config {CONFIGURATION} --kubeconfig {kubeconfig} --wait 180s",
        f"export kubeconfig --name shield --kubeconfig {kubeconfig}",
    ]


def test_down_deletes_it_and_status_follows(commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = KindCli(KindSettings(cluster="mine"), silent)
    assert cluster.status().state is State.ABSENT
    cluster.up()
    assert cluster.status().state is State.RUNNING
    assert cluster.down() is True
    assert cluster.down() is False
    assert cluster.status().state is State.ABSENT


def test_what_kind_complains_about_is_passed_on(commands: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(KindError, match="no space left"):
        KindCli(KindSettings(), silent).up()


@pytest.mark.parametrize("missing", ["kind", "docker"])
def test_a_missing_program_is_named_with_both_ways_out(commands: Path, tmp_path: Path, missing: str) -> None:
    (tmp_path / "programs" / missing).unlink()
    with pytest.raises(PrerequisiteMissing, match=missing) as failed:
        KindCli(KindSettings(), silent).up()
    assert "go install sigs.k8s.io/kind" in failed.value.advice
    assert "make cluster-up" in failed.value.advice


def test_the_configuration_is_one_node() -> None:
    content = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    assert content["kind"] == "Cluster"
    assert [node["role"] for node in content["nodes"]] == ["control-plane"]
