"""Configuration that the components will read: well formed, and with the values that a shared machine needs."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from kind import node_files
from kind.addresses import Addresses
from kind.binaries import Store
from kind.console import silent
from kind.node import Running
from kind.node_plan import plan, write_files
from kind.settings import KindSettings

ADDRESSES = Addresses(2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(KindSettings(cache=tmp_path / "cache"), silent)


def test_containerd_keeps_to_its_place_and_to_our_registry() -> None:
    content = tomllib.loads(node_files.containerd(runc="/usr/sbin/runc", cni=Path("/cni")))
    assert content["root"].startswith("/run/shield/")
    assert content["plugins"]["io.containerd.cri.v1.runtime"]["restrict_oom_score_adj"] is True
    assert content["plugins"]["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"] == node_files.PAUSE_IMAGE
    hosts = tomllib.loads(node_files.registry_hosts(ADDRESSES))
    assert hosts["server"] == "http://10.250.2.1:5000"
    assert set(hosts["host"]) == {"http://10.250.2.1:5000"}


def test_the_kubelet_asks_who_it_talks_to_and_accepts_both_versions_of_control_groups() -> None:
    content = yaml.safe_load(node_files.kubelet(ADDRESSES, cgroup="shield-x"))
    assert content["authentication"]["anonymous"]["enabled"] is False
    assert content["authorization"]["mode"] == "Webhook"
    assert content["readOnlyPort"] == 0
    assert content["failCgroupV1"] is False
    assert content["cgroupRoot"] == "/shield-x"
    assert content["clusterDNS"] == [ADDRESSES.dns_service]


def test_kube_proxy_leaves_the_machines_connection_tracking_alone() -> None:
    content = yaml.safe_load(node_files.kube_proxy(ADDRESSES))
    assert content["linux"]["conntrack"] == {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}


def test_names_outside_the_cluster_do_not_exist() -> None:
    corefile = node_files.coredns(ADDRESSES)
    assert "rcode NXDOMAIN" in corefile
    assert "forward" not in corefile
    assert corefile.count(f"bind {ADDRESSES.node}") == 2


def test_the_service_of_dns_has_the_address_that_pods_are_told() -> None:
    objects = {item["kind"]: item for item in yaml.safe_load_all(node_files.manifests(ADDRESSES))}
    assert objects["Service"]["spec"]["clusterIP"] == ADDRESSES.dns_service
    assert objects["EndpointSlice"]["endpoints"][0]["addresses"] == [ADDRESSES.node]
    assert {verb for rule in objects["ClusterRole"]["rules"] for verb in rule["verbs"]} == {"list", "watch"}


def test_every_file_that_a_component_is_given_is_written(store: Store, tmp_path: Path) -> None:
    write_files(tmp_path / "state", ADDRESSES, store, runc="/usr/sbin/runc", cgroup="shield-x")
    named = [argument.rpartition("=")[2] for component in plan(store, ADDRESSES) for argument in component.command]
    for path in (Path(name) for name in named if name.startswith("/run/shield/config/")):
        assert (tmp_path / "state" / path.relative_to("/run/shield")).is_file()
    assert json.loads((tmp_path / "state/config/cni/10-shield.conflist").read_text(encoding="utf-8"))["plugins"][0]["ipam"]["ranges"] == [
        [{"subnet": "10.244.2.0/24"}]
    ]


def test_the_plan_is_what_the_first_process_reads_and_waits_for_whom_it_needs(store: Store) -> None:
    components = [Running(**json.loads(json.dumps(asdict(component)))) for component in plan(store, ADDRESSES)]
    gates = {component.name: component.after for component in components}
    assert [component.name for component in components][:4] == ["registry", "containerd", "etcd", "kube-apiserver"]
    assert gates["kube-apiserver"] == "/run/sockets/etcd"
    assert gates["kube-controller-manager"] == "10.250.2.1:6443"
    assert gates["kubelet"] == "/run/sockets/containerd.sock"


def test_nothing_listens_on_all_addresses(store: Store) -> None:
    for component in plan(store, ADDRESSES):
        assert not any("0.0.0.0" in argument for argument in component.command)
    for name in ("apiserver", "etcd"):
        command = next(component.command for component in plan(store, ADDRESSES) if component.name.endswith(name))
        assert any(
            argument in command for argument in (f"--bind-address={ADDRESSES.node}", "--listen-client-urls=unix:///run/sockets/etcd")
        )
