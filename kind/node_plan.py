"""What the first process of a cluster starts, in order, and the files that these components read."""

from __future__ import annotations

from pathlib import Path

from kind import components, node_files
from kind.addresses import Addresses
from kind.binaries import Store
from kind.catalogue import CNI, CONTAINERD, COREDNS, ETCD, KUBERNETES, REGISTRY
from kind.components import Component, Credentials, Serving, issue_config
from kind.node import INSIDE, SOCKETS
from kind.node_files import CONTAINERD_SOCKET, NODE_NAME
from kind.pki import Authority

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DIRECTORIES = ("logs", "config/cni", "config/certs.d/_default", "etcd", "registry", "volumes", "volume-plugins")


def serving_of(addresses: Addresses) -> Serving:
    """Where the cluster's API server is."""
    return Serving(addresses.node, 6443, addresses.services, addresses.api_service)


def issue_node_credentials(directory: Path, authority: Authority, addresses: Addresses) -> None:
    """Certificates of the components that run on a node, beside those of the control plane."""
    serving = serving_of(addresses)
    authority.issue("kubelet", NODE_NAME, hosts=[NODE_NAME, addresses.node])
    issue_config(directory, authority, serving, "node", f"system:node:{NODE_NAME}", group="system:nodes")
    issue_config(directory, authority, serving, "kube-proxy", "system:kube-proxy")
    issue_config(directory, authority, serving, "coredns", "system:coredns")


def write_files(directory: Path, addresses: Addresses, store: Store, *, runc: str, cgroup: str) -> None:
    """The components' configuration, and the directories that they expect."""
    for name in _DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "etcd").chmod(0o700)
    config = directory / "config"
    for file, content in {
        "containerd.toml": node_files.containerd(runc=runc, cni=store.directory(CNI)),
        "certs.d/_default/hosts.toml": node_files.registry_hosts(addresses),
        "cni/10-shield.conflist": node_files.cni(addresses),
        "registry.yaml": node_files.registry(addresses),
        "kubelet.yaml": node_files.kubelet(addresses, cgroup=cgroup),
        "kube-proxy.yaml": node_files.kube_proxy(addresses),
        "Corefile": node_files.coredns(addresses),
        "resolv.conf": f"nameserver {addresses.dns_service}\n",
    }.items():
        (config / file).write_text(content, encoding="utf-8")


def plan(store: Store, addresses: Addresses) -> list[Component]:
    """All components in the order of their start."""
    serving, credentials = serving_of(addresses), Credentials(INSIDE)
    kubernetes, containerd = store.directory(KUBERNETES), store.directory(CONTAINERD)
    api = f"{serving.address}:{serving.port}"
    config = INSIDE / "config"
    started = [
        Component(
            "registry",
            (str(store.directory(REGISTRY) / "registry"), "serve", str(config / "registry.yaml")),
            {"OTEL_TRACES_EXPORTER": "none"},
        ),
        Component("containerd", (str(containerd / "containerd"), "--config", str(config / "containerd.toml"))),
        components.etcd(store.directory(ETCD) / "etcd", data=INSIDE / "etcd", sockets=SOCKETS),
        _after(str(SOCKETS / "etcd"), components.apiserver(kubernetes / "kube-apiserver", serving, credentials, sockets=SOCKETS)),
        _after(api, components.controller_manager(kubernetes / "kube-controller-manager", credentials)),
        components.scheduler(kubernetes / "kube-scheduler", credentials),
        _after(
            str(CONTAINERD_SOCKET),
            Component(
                "kubelet",
                (
                    str(kubernetes / "kubelet"),
                    f"--config={config}/kubelet.yaml",
                    f"--kubeconfig={INSIDE}/node.conf",
                    f"--hostname-override={NODE_NAME}",
                    f"--node-ip={addresses.node}",
                    f"--root-dir={INSIDE}/kubelet",
                ),
            ),
        ),
        Component("kube-proxy", (str(kubernetes / "kube-proxy"), f"--config={config}/kube-proxy.yaml")),
        Component("coredns", (str(store.directory(COREDNS) / "coredns"), "-conf", str(config / "Corefile"))),
    ]
    path = {"PATH": f"{containerd}:{_PATH}", "HOME": "/run"}
    return [Component(c.name, c.command, {**path, **c.environment}, c.after) for c in started]


def _after(gate: str, component: Component) -> Component:
    return Component(component.name, component.command, component.environment, gate)
