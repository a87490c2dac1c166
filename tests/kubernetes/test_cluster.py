"""A whole cluster: pods run, names resolve, parts that die come back, starts that were killed are finished, and nothing is left."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import psutil
import pytest

from kind.catalogue import KUBERNETES
from kind.cluster import Cluster
from kind.console import to_stderr
from kind.images import push_program
from kind.proof import prove
from kind.settings import KindSettings
from kind.status import State, status
from kind.waiting import until

_NAME = "test"


def kernel_settings() -> dict[str, str]:
    names = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "net/ipv4/ip_forward")
    return {name: Path("/proc/sys", name).read_text(encoding="ascii") for name in names}


@pytest.fixture(scope="module")
def settings_before() -> dict[str, str]:
    return kernel_settings()


@pytest.fixture(scope="module")
def cluster(settings_before: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(KindSettings(cluster=_NAME), to_stderr)
    cluster.down()
    cluster.up()
    try:
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> str:
    """An image of a static program that talks to an API server: kubectl."""
    push_program(cluster.addresses.registry, "library/kubectl", "test", cluster.store.directory(KUBERNETES) / "kubectl")
    return "kubectl:test"


def a_pod(name: str, image: str, server: str, *arguments: str, **spec: object) -> str:
    """A pod that asks an API server, by name, for its version."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Always",
        "args": arguments or ["version", "--cache-dir=/tmp"],
        "env": [{"name": "KUBERNETES_SERVICE_HOST", "value": server}],
    }
    pod = {"containers": [container], "restartPolicy": "Never", **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod})


def test_every_component_runs_and_its_memory_is_told(cluster: Cluster) -> None:
    seen = status(cluster, _NAME)
    assert seen.state is State.RUNNING
    assert {component.name for component in seen.components} >= {"etcd", "kubelet", "kube-proxy", "containerd", "coredns", "registry"}
    assert [component for component in seen.components if not component.running] == []
    assert all(component.memory_mib > 0 for component in seen.components)


def test_up_again_changes_nothing(cluster: Cluster) -> None:
    before = cluster.first_process()
    cluster.up()
    assert cluster.first_process() == before


def test_a_pod_pulls_from_the_registry_finds_a_service_by_name_and_its_log_is_read(cluster: Cluster, image: str) -> None:
    restricted = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = a_pod("asks", image, "kubernetes.default.svc.cluster.local", securityContext=restricted)
    cluster.kubectl.run("create", "-f", "-", input=pod)
    cluster.kubectl.run("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/asks", "--timeout=90s", timeout=100)
    assert f"Server Version: {KUBERNETES.version}" in cluster.kubectl.run("logs", "asks")


def test_a_name_outside_the_cluster_does_not_exist_and_fails_at_once(cluster: Cluster, image: str) -> None:
    cluster.kubectl.run("create", "-f", "-", input=a_pod("outside", image, "www.example.org"))
    cluster.kubectl.run("wait", "--for=jsonpath={.status.phase}=Failed", "pod/outside", "--timeout=90s", timeout=100)
    assert "no such host" in cluster.kubectl.run("logs", "outside")


def test_exec_reaches_a_running_pod_and_its_files_lie_where_the_host_can_write(cluster: Cluster, image: str) -> None:
    seen = status(cluster, _NAME)
    assert seen.volumes is not None
    Path(seen.volumes, "kubeconfig").write_text(cluster.kubeconfig.read_text(encoding="utf-8"), encoding="utf-8")
    pod = json.loads(a_pod("stays", image, "", "proxy", "--kubeconfig=/source/kubeconfig"))
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "source", "mountPath": "/source", "readOnly": True}]
    pod["spec"]["containers"][0]["securityContext"] = {"runAsUser": 0}
    pod["spec"]["volumes"] = [{"name": "source", "hostPath": {"path": seen.node_volumes}}]
    cluster.kubectl.run("create", "-f", "-", input=json.dumps(pod))
    cluster.kubectl.run("wait", "--for=condition=Ready", "pod/stays", "--timeout=90s", timeout=100)
    answer = cluster.kubectl.run("exec", "stays", "--", "/kubectl", "--kubeconfig=/source/kubeconfig", "--cache-dir=/tmp", "get", "nodes")
    assert "node1" in answer
    cluster.kubectl.run("delete", "pod", "stays", "--grace-period=0", "--force")


def test_the_host_reaches_services_through_kube_proxy(cluster: Cluster) -> None:
    question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"
    address = socket.inet_aton(cluster.addresses.api_service)

    def answered() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.sendto(question, (cluster.addresses.dns_service, 53))
            try:
                return client.recv(512).endswith(address)
            except TimeoutError:
                return False

    until("an answer of the service kube-dns", answered, limit=20)


def test_a_component_that_is_killed_comes_back(cluster: Cluster) -> None:
    first = cluster.first_process()
    assert first is not None
    next(process for process in first.children() if process.name().startswith("kube-scheduler")).kill()

    def back() -> bool:
        found = next(component for component in status(cluster, _NAME).components if component.name == "kube-scheduler")
        return found.running and found.restarts > 0 and found.last_exit == -9

    until("the scheduler", back, limit=20)


def test_kernel_settings_stay_as_they_were_and_every_process_has_another_network(cluster: Cluster, settings_before: dict[str, str]) -> None:
    first = cluster.first_process()
    assert first is not None
    inside = [process.pid for process in first.children(recursive=True)]
    own = Path("/proc/self/ns/net").readlink()
    assert inside
    assert all(Path(f"/proc/{pid}/ns/net").readlink() != own for pid in inside if psutil.pid_exists(pid))
    assert kernel_settings() == settings_before


def test_a_start_that_was_killed_is_finished_by_the_next_and_a_cluster_beside_it_leaves_nothing(cluster: Cluster) -> None:
    other = Cluster(KindSettings(cluster="test-2"), to_stderr)
    other.down()
    start = subprocess.Popen([sys.executable, "-m", "kind", "up", "--name", "test-2"])
    until("the first process", lambda: other.first_process() is not None, limit=60, pause=0.01)
    start.kill()
    start.wait(10)
    try:
        other.up()
        assert status(other, "test-2").state is State.RUNNING
        assert other.addresses.number != cluster.addresses.number
    finally:
        other.down()
    assert prove(other, to_stderr, sabotage=False) == []
    assert status(other, "test-2").state is State.ABSENT
    assert status(cluster, _NAME).state is State.RUNNING


def test_a_mount_left_on_purpose_is_noticed() -> None:
    left = prove(Cluster(KindSettings(cluster="test-3"), to_stderr), to_stderr, sabotage=True)
    assert [fact.partition("-sabotage-")[0] for fact in left] == [f"mount {gettempdir()}/shield"]
