"""The control plane is a real one, and leaves no process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kind.control_plane import ControlPlane
from kind.kubectl import KubectlFailed
from kind.waiting import until


def test_it_serves_within_eight_seconds_on_loopback_only_and_leaves_no_process(tmp_path: Path) -> None:
    began = time.monotonic()
    with ControlPlane(tmp_path, controllers=False) as plane:
        took = time.monotonic() - began
        processes = [psutil.Process(pid) for pid in plane.processes.values()]
        listening = {c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert json.loads(plane.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"].startswith("v1.")
    assert listening == {"127.0.0.1"}
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)
    assert took < 60, "8 s on a quiet machine"


def test_the_controllers_work_and_a_killed_api_server_comes_back_with_its_data(plane: ControlPlane) -> None:
    plane.kubectl("create", "namespace", "control-plane")
    plane.kubectl("-n", "control-plane", "create", "job", "idle", "--image=none")
    plane.kubectl("-n", "control-plane", "wait", "--for=jsonpath={.status.active}=1", "job/idle", "--timeout=60s")
    plane.kill("kube-apiserver")
    with pytest.raises(KubectlFailed, match="refused"):
        plane.get("namespaces")
    plane.start("kube-apiserver")
    assert plane.get("-n", "control-plane", "job", "idle")["metadata"]["name"] == "idle"
    plane.kubectl("delete", "namespace", "control-plane", "--wait=false")


def test_pods_on_a_fake_node_complete(tmp_path: Path) -> None:
    pod = {
        "nodeSelector": {"kwok.x-k8s.io/node": "fake"},
        "tolerations": [{"operator": "Exists"}],
        "restartPolicy": "Never",
        "containers": [{"name": "worker", "image": "none"}],
    }
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "fake"}, "spec": {"template": {"spec": pod}}}
    with ControlPlane(tmp_path, kwok=True) as plane:
        plane.kubectl("create", "-f", "-", input=json.dumps(job))
        plane.kubectl("wait", "--for=condition=Complete", "job/fake", "--timeout=60s")
        listening = {
            c.laddr.ip
            for pid in plane.processes.values()
            for c in psutil.Process(pid).net_connections("inet")
            if c.status == psutil.CONN_LISTEN
        }
    assert listening == {"127.0.0.1"}


def test_processes_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time; from kind.control_plane import ControlPlane\n"
        "with ControlPlane(pathlib.Path(sys.argv[1]), controllers=False) as plane:\n"
        "    print(*plane.processes.values(), flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.communicate(timeout=10)
    until("the end of etcd and the API server", lambda: not any(map(psutil.pid_exists, pids)), limit=20)
