"""What a cluster looks like from outside: for people as text, for programs as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil

from kind import node
from kind.catalogue import NODE
from kind.cluster import Cluster


class State(StrEnum):
    """How far a cluster is."""

    ABSENT = "absent"
    REMAINS = "remains"
    """A part of one is there, and nothing runs: `down` removes it, `up` starts it anew."""
    STARTING = "starting"
    """Its processes run, and its API server does not answer."""
    RUNNING = "running"


@dataclass(frozen=True)
class ComponentStatus:
    """A process of the cluster."""

    name: str
    running: bool
    restarts: int
    last_exit: int | None
    memory_mib: int


@dataclass(frozen=True)
class ClusterStatus:
    """What there is to know. Paths and addresses are null where there is no cluster."""

    cluster: str
    state: State
    kubeconfig: str | None = None
    api: str | None = None
    registry: str | None = None
    """`address:port` to push images to; pods name them without it."""
    node: str | None = None
    """The node's address; NodePorts are here."""
    host: str | None = None
    """The host's address as pods see it."""
    volumes: str | None = None
    """A directory of this machine that pods mount as hostPath `node_volumes`."""
    node_volumes: str | None = None
    programs: str | None = None
    """A directory for PATH, with kubectl, helm and ctr."""
    first_process: int | None = None
    components: tuple[ComponentStatus, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One object."""
        return json.dumps(asdict(self), indent=2)

    def to_text(self) -> str:
        """A few lines."""
        if self.state in (State.ABSENT, State.REMAINS):
            hint = (
                "make cluster-up starts it"
                if self.state is State.ABSENT
                else "remains of it are here: make cluster-up starts it, make cluster-down removes them"
            )
            return f"cluster {self.cluster}: {self.state}; {hint}"
        lines = [f"cluster {self.cluster}: {self.state}, Kubernetes {self.versions.get('kubernetes', '?')}"]
        lines += [
            f"  {label:<12}{value}" for label, value in (("API", self.api), ("registry", self.registry), ("volumes", self.volumes)) if value
        ]
        for component in self.components:
            fate = f"{component.memory_mib} MiB" if component.running else f"not running (exit {component.last_exit})"
            lines.append(f"  {component.name:<26}{fate}" + (f", started again {component.restarts} times" if component.restarts else ""))
        lines.append(f"  export KUBECONFIG={self.kubeconfig}" + (f" PATH={self.programs}:$PATH" if self.programs else ""))
        return "\n".join(lines)


def status(cluster: Cluster, name: str) -> ClusterStatus:
    """Look at a cluster; changes nothing and waits at most two seconds."""
    first = cluster.first_process()
    if first is None:
        return ClusterStatus(name, State.REMAINS if cluster.exists else State.ABSENT)
    addresses = cluster.addresses
    return ClusterStatus(
        cluster=name,
        state=State.RUNNING if cluster.api_ready() else State.STARTING,
        kubeconfig=str(cluster.kubeconfig),
        api=f"https://{addresses.node}:6443",
        registry=addresses.registry,
        node=addresses.node,
        host=addresses.outside,
        volumes=str(cluster.directory / "volumes"),
        node_volumes=str(node.INSIDE / "volumes"),
        programs=str(cluster.directory / "bin"),
        first_process=first.pid,
        components=_components(cluster.directory / node.REPORT, first),
        versions={tool.name: tool.version for tool in NODE if tool.version},
    )


def _components(report: Path, first: psutil.Process) -> tuple[ComponentStatus, ...]:
    if not report.exists():
        return ()
    memory: dict[str, int] = {}
    for process in first.children():
        try:
            memory[Path(process.cmdline()[0]).name] = process.memory_info().rss // 1024**2
        except (psutil.Error, IndexError):  # it ended while we looked
            continue
    return tuple(
        ComponentStatus(**entry, memory_mib=memory.get(entry["name"], 0)) for entry in json.loads(report.read_text(encoding="utf-8"))
    )
