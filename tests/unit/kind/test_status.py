"""What a cluster's status says, to people and to programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kind.__main__ import main
from kind.cluster import Cluster
from kind.console import silent
from kind.settings import KindSettings
from kind.status import ClusterStatus, ComponentStatus, State, status

RUNNING = ClusterStatus(
    cluster="shield",
    state=State.RUNNING,
    kubeconfig="/state/shield/kubeconfig",
    api="https://10.250.0.1:6443",
    registry="10.250.0.1:5000",
    programs="/state/shield/bin",
    components=(
        ComponentStatus("etcd", running=True, restarts=0, last_exit=None, memory_mib=53),
        ComponentStatus("kubelet", running=False, restarts=3, last_exit=-9, memory_mib=0),
    ),
    versions={"kubernetes": "v1.37.2"},
)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHIELD_KIND_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("SHIELD_KIND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "state"


def test_people_see_what_runs_what_does_not_and_what_to_type() -> None:
    text = RUNNING.to_text()
    assert "cluster shield: running, Kubernetes v1.37.2" in text
    assert "registry    10.250.0.1:5000" in text
    assert "etcd                      53 MiB" in text
    assert "kubelet                   not running (exit -9), started again 3 times" in text
    assert "export KUBECONFIG=/state/shield/kubeconfig PATH=/state/shield/bin:$PATH" in text


def test_programs_get_one_object() -> None:
    content = json.loads(RUNNING.to_json())
    assert content["state"] == "running"
    assert content["kubeconfig"] == "/state/shield/kubeconfig"
    assert content["registry"] == "10.250.0.1:5000"
    assert content["components"][0] == {"name": "etcd", "running": True, "restarts": 0, "last_exit": None, "memory_mib": 53}


def test_where_there_is_none_the_answer_says_how_to_start_one(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 3
    assert capsys.readouterr().out == "cluster shield: absent; make cluster-up starts it\n"
    assert main(["status", "--json", "--name", "other"]) == 3
    assert json.loads(capsys.readouterr().out)["cluster"] == "other"


def test_the_remains_of_one_are_told_from_none(nowhere: Path) -> None:
    (nowhere / "shield").mkdir(parents=True)
    (nowhere / "shield" / "cluster.json").write_text('{"number": 7}', encoding="utf-8")
    settings = KindSettings()
    seen = status(Cluster(settings, silent), settings.cluster)
    assert seen.state is State.REMAINS
    assert "make cluster-down removes them" in seen.to_text()


def test_a_name_that_could_leave_its_directory_is_refused(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--name", "../etc"]) == 2
    assert "cluster.settings_invalid" in capsys.readouterr().err


def test_an_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["restart"])
    assert ended.value.code == 2
    assert "proof-clean" in capsys.readouterr().err
