"""Command lines of the control plane's components, as the plain control plane and the whole cluster both run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kind.kubeconfig import write_kubeconfig
from kind.pki import ADMINISTRATORS, Authority

_CLIENT_QPS = 1000
"""Requests a second that the controllers may send. Their own limit of 20 completes two Jobs a second."""


@dataclass(frozen=True)
class Component:
    """A process to run. Its name is that of its log, too."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    after: str = ""
    """Started when somebody listens here: a socket's path, or address:port."""


@dataclass(frozen=True)
class Serving:
    """Where the API server is, and what it is for."""

    address: str
    port: int
    services: str
    """Network of the services' addresses."""
    service_address: str
    """The API server's own address among them."""

    @property
    def url(self) -> str:
        """Its address for clients."""
        return f"https://{self.address}:{self.port}"


@dataclass(frozen=True)
class Credentials:
    """Where the certificates and kubeconfigs of a control plane are, under a directory that may have another name elsewhere."""

    directory: Path

    def file(self, name: str) -> Path:
        """A certificate (`.crt`, `.pub`) or key (`.key`)."""
        return self.directory / "pki" / name

    def config(self, user: str) -> Path:
        """A user's kubeconfig."""
        return self.directory / f"{user}.conf"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "kubeconfig"


def make_credentials(directory: Path, serving: Serving) -> Authority:
    """Write them under `directory`; the authority can issue more."""
    authority = Authority(directory / "pki")
    hosts = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1"]
    authority.issue("apiserver", "kube-apiserver", hosts=[*hosts, serving.service_address, serving.address])
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client", group=ADMINISTRATORS)
    Authority(directory / "pki", "front-proxy-ca").issue("front-proxy", "front-proxy-client")
    authority.key_pair("service-accounts")
    administrator = authority.issue("admin", "kubernetes-admin", group=ADMINISTRATORS)
    write_kubeconfig(directory / "kubeconfig", server=serving.url, authority=authority.certificate, user=administrator)
    for name in ("controller-manager", "scheduler"):
        issue_config(directory, authority, serving, name, f"system:kube-{name}")
    return authority


def issue_config(directory: Path, authority: Authority, serving: Serving, name: str, user: str, *, group: str | None = None) -> None:
    """A certificate for a user of the API, and the kubeconfig `<name>.conf` with it."""
    pair = authority.issue(name, user, group=group)
    write_kubeconfig(directory / f"{name}.conf", server=serving.url, authority=authority.certificate, user=pair)


def etcd(program: Path, *, data: Path, sockets: Path) -> Component:
    """The store. It listens on sockets in a private directory only: it asks nobody who they are."""
    client, peer = f"unix://{sockets}/etcd", f"unix://{sockets}/peer"
    return Component(
        "etcd",
        (
            str(program),
            f"--data-dir={data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        ),
    )


def apiserver(program: Path, serving: Serving, credentials: Credentials, *, sockets: Path, extra: Sequence[str] = ()) -> Component:
    """The API server, with the admission plugins that are on by default, and NodeRestriction."""
    file = credentials.file
    return Component(
        "kube-apiserver",
        (
            str(program),
            f"--etcd-servers=unix://{sockets}/etcd",
            f"--advertise-address={serving.address}",
            f"--bind-address={serving.address}",
            f"--secure-port={serving.port}",
            f"--service-cluster-ip-range={serving.services}",
            f"--client-ca-file={file('ca.crt')}",
            f"--tls-cert-file={file('apiserver.crt')}",
            f"--tls-private-key-file={file('apiserver.key')}",
            f"--kubelet-client-certificate={file('kubelet-client.crt')}",
            f"--kubelet-client-key={file('kubelet-client.key')}",
            f"--kubelet-certificate-authority={file('ca.crt')}",
            "--kubelet-preferred-address-types=InternalIP",  # nobody resolves the node's name
            # Extensions of the API, such as metrics-server, learn by a certificate of this authority whom the API server speaks for.
            f"--requestheader-client-ca-file={file('front-proxy-ca.crt')}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={file('front-proxy.crt')}",
            f"--proxy-client-key-file={file('front-proxy.key')}",
            "--enable-aggregator-routing=true",  # to the pods themselves: a ClusterIP needs kube-proxy where the API server runs
            f"--service-account-key-file={file('service-accounts.pub')}",
            f"--service-account-signing-key-file={file('service-accounts.key')}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--profiling=false",
            *extra,
        ),
    )


def controller_manager(program: Path, credentials: Credentials, extra: Sequence[str] = ()) -> Component:
    """The controllers, with client limits that do not hide what an operator can do."""
    config, file = credentials.config("controller-manager"), credentials.file
    return Component(
        "kube-controller-manager",
        (
            str(program),
            f"--kubeconfig={config}",
            "--secure-port=0",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={file('service-accounts.key')}",
            f"--root-ca-file={file('ca.crt')}",
            f"--cluster-signing-cert-file={file('ca.crt')}",
            f"--cluster-signing-key-file={file('ca.key')}",
            f"--kube-api-qps={_CLIENT_QPS}",
            f"--kube-api-burst={2 * _CLIENT_QPS}",
            "--concurrent-job-syncs=20",
            *extra,
        ),
    )


def scheduler(program: Path, credentials: Credentials) -> Component:
    """The scheduler, with the same limits."""
    return Component(
        "kube-scheduler",
        (
            str(program),
            f"--kubeconfig={credentials.config('scheduler')}",
            "--secure-port=0",
            "--leader-elect=false",
            f"--kube-api-qps={_CLIENT_QPS}",
            f"--kube-api-burst={2 * _CLIENT_QPS}",
        ),
    )


FAKE_NODE = "kwok.x-k8s.io/node"
"""Annotation of the nodes that KWOK plays, and key of their taint; its value is `fake`."""


def kwok(program: Path, config: Path, *, port: int) -> Component:
    """KWOK: nodes without machines, on which pods run and complete at once."""
    stages = sorted(program.parent.glob("*.yaml"))
    return Component(
        "kwok",
        (
            str(program),
            f"--kubeconfig={config}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={FAKE_NODE}=fake",
            "--cidr=10.99.0.0/16",
            "--node-ip=10.99.99.1",
            "--node-lease-duration-seconds=40",
            f"--server-address=127.0.0.1:{port}",  # without it, all addresses
            *(f"--config={stage}" for stage in stages),
        ),
    )
