"""Proof that a cluster leaves nothing behind, counted from outside.

The machine is looked at before: mounts, links, routes, kernel settings, control groups, firewall rules, and places where Kubernetes' parts
like to write. Then a cluster starts, runs a pod with volumes and a host port, and is stopped with the pod still in it. Afterwards everything is
looked at again. What is new or changed is left behind; so is a process that was seen in the cluster, or is in a namespace that the cluster had.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from kind import cgroups
from kind.addresses import CLUSTERS, Addresses
from kind.cluster import Cluster
from kind.console import Report
from kind.errors import KindError
from kind.node_files import PAUSE_IMAGE

_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "net/bridge/bridge-nf-call-iptables",
)
_PLACES = (
    "/etc/cni",
    "/etc/containerd",
    "/etc/kubernetes",
    "/opt/cni",
    "/opt/containerd",
    "/run/containerd",
    "/run/netns",
    "/run/sockets",
    "/run/shield",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
    "~/.kube",
    "~/.config/helm",
)
_OTHERS = ("/var/lib/containers/", "/var/lib/docker/")
"""Where programs that build images mount while they work; nothing of a cluster does."""
_NAMESPACES = ("pid", "net", "mnt", "uts", "ipc")
_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "proof"},
    "spec": {
        "containers": [
            {
                "name": "idle",
                "image": PAUSE_IMAGE,
                "imagePullPolicy": "Always",
                "ports": [{"containerPort": 80, "hostPort": 8088}],
                "volumeMounts": [{"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"}],
            }
        ],
        "volumes": [{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}],
    },
}


@dataclass(frozen=True)
class Snapshot:
    """What the machine has, as sentences that can be compared."""

    facts: frozenset[str]

    def new_since(self, before: Snapshot, *, besides: frozenset[str] = frozenset()) -> list[str]:
        """What was not there, without what names one of `besides`: links of other clusters, which come and go as they please."""
        return sorted(fact for fact in self.facts - before.facts if besides.isdisjoint(fact.split()))


@dataclass(frozen=True)
class Seen:
    """Processes and namespaces of a cluster, seen while it ran."""

    processes: frozenset[tuple[int, float]]
    namespaces: frozenset[str]


def snapshot(cluster: Cluster) -> Snapshot:
    """Look at the machine."""
    facts = mounts(Path("/proc/mounts").read_text(encoding="utf-8"))
    facts |= {f"link {link['ifname']}" for link in json.loads(_output("ip", "-json", "link"))}
    facts |= {f"route {line.strip()}" for line in _output("ip", "route", "show", "table", "all").splitlines()}
    facts |= {f"rule {line}" for line in _output("iptables-save").splitlines() if line.startswith("-A")}
    facts |= {
        f"setting {name} = {path.read_text(encoding='ascii').strip()}" for name in _SETTINGS if (path := Path("/proc/sys", name)).exists()
    }
    facts |= {f"control group {path}" for path in cgroups.remains(cluster.cgroup)}
    facts |= {f"path {path}" for place in _PLACES if (path := Path(place).expanduser()).exists()}
    facts |= {f"path {cluster.directory}"} if cluster.directory.exists() else set()
    return Snapshot(frozenset(facts))


def mounts(table: str) -> set[str]:
    """Every mount; one over another at the same place is numbered."""
    seen: Counter[tuple[str, str]] = Counter()
    facts = set()
    for line in table.splitlines():
        _, where, kind, *_ = line.split()
        if where.startswith(_OTHERS):
            continue
        seen[where, kind] += 1
        facts.add(f"mount {where} ({kind}) #{seen[where, kind]}")
    return facts


def look_inside(cluster: Cluster) -> Seen:
    """Every process of a running cluster, and the namespaces that are not the machine's."""
    first = cluster.first_process()
    if first is None:
        raise KindError("the cluster does not run")
    processes = [first, *first.children(recursive=True)]
    own = {_namespace(os.getpid(), kind) for kind in _NAMESPACES}
    namespaces = {_namespace(process.pid, kind) for process in processes for kind in _NAMESPACES} - own - {""}
    return Seen(frozenset((process.pid, process.create_time()) for process in processes), frozenset(namespaces))


def survivors(seen: Seen, *, ended: float) -> list[str]:
    """Processes that are still there: those that were seen, and others in the cluster's namespaces that began before it `ended`.

    What began later has a namespace of its own, to which the kernel gave the number of one that is gone.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:  # ended; the machine's first process has not taken note yet
                continue
            known = (process.pid, process.create_time()) in seen.processes
            older = process.create_time() < ended
            if known or (older and any(_namespace(process.pid, kind) in seen.namespaces for kind in _NAMESPACES)):
                found.append(f"process {process.pid} {process.name()}")
        except psutil.Error:  # it ended while we looked
            continue
    return found


def prove(cluster: Cluster, report: Report, *, sabotage: bool) -> list[str]:
    """Start, use and stop a cluster; returns what is left behind. With `sabotage` a mount is left on purpose.

    Raises:
        KindError: a cluster of this name is there already, or it does not start.
    """
    if cluster.exists:
        raise KindError("a cluster of this name is there already: the proof needs one of its own", "Give it a name: --name proof-clean")
    before = snapshot(cluster)
    try:
        cluster.up()
        cluster.kubectl.run("create", "-f", "-", input=json.dumps(_POD))
        cluster.kubectl.run("wait", "--for=condition=Ready", "pod/proof", "--timeout=120s", timeout=130)
        seen = look_inside(cluster)
        others = frozenset(Addresses(number).link for number in range(CLUSTERS)) - {cluster.addresses.link}
        report(f"  a pod ran; the cluster had {len(seen.processes)} processes and {len(seen.namespaces)} namespaces")
    finally:
        cluster.down()
    ended = time.time()
    with _left_mount() if sabotage else _nothing():
        return [*snapshot(cluster).new_since(before, besides=others), *survivors(seen, ended=ended)]


@contextmanager
def _left_mount() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="shield-sabotage-") as directory:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], check=True, timeout=10)
        try:
            yield
        finally:
            subprocess.run(["umount", directory], check=True, timeout=10)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _namespace(pid: int, kind: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return ""


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
