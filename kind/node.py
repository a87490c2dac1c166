"""The first process of a cluster's namespaces: `python -m kind.node DIRECTORY`, started by `kind.cluster` under `unshare`.

It makes the mounts that keep the cluster's traces out of the machine, brings up the loopback device, starts the components that
`DIRECTORY/plan.json` lists, and starts each again that ends. When it ends, the kernel ends every process of the namespaces, and
their mounts, rules and links go with them: nothing else has to be cleaned up in an orderly way.

What is written under /etc, /opt and /var lands in memory (an overlay), /run is empty and private, and `DIRECTORY` is /run/shield. The kubelet
wants certain kernel settings that have no namespace; it finds them to be as it wants in files that lie over the real ones, so the machine's own
never change.

Standard library only: this process lives as long as the cluster.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INSIDE = Path("/run/shield")
"""Where the cluster's directory appears in its own namespaces."""
SOCKETS = Path("/run/sockets")
"""Sockets of etcd and containerd: short paths, gone with the namespaces."""
PLAN = "plan.json"
REPORT = "components.json"

_KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What the kubelet sets on a machine that is its own."""
_OVERLAID = ("etc", "opt", "var")
_GATE_LIMIT = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE, _STEADY = 0.5, 10.0, 30.0


@dataclass
class Running:
    """A component, and how it fares."""

    name: str
    command: list[str]
    environment: dict[str, str]
    after: str
    pid: int = 0
    started: float = 0.0
    restarts: int = 0
    last_exit: int | None = None
    start_at: float = 0.0
    pause: float = _FIRST_PAUSE


def main(directory: Path) -> int:
    """Run until told to end."""
    plan = json.loads((directory / PLAN).read_text(encoding="utf-8"))
    socket.sethostname(plan["hostname"])
    _mounts(directory)
    _network(plan["node_address"], plan["services"])
    Supervisor([Running(**component) for component in plan["components"]]).run()
    return 0


class Supervisor:
    """Starts the components in order, reaps every process that ends, and starts components again after a growing pause."""

    def __init__(self, components: list[Running]) -> None:
        self._components = components

    def run(self) -> None:
        """Until SIGTERM."""
        # Blocked signals wait to be asked for, so none is lost between two looks; children get an empty mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
        for component in self._components:
            self._wait_for(component.after)
            self._start(component)
        self._tell()
        while True:
            received = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, 1.0)
            if received is not None and received.si_signo == signal.SIGTERM:
                return
            self._reap()
            self._start_again()

    def _wait_for(self, gate: str) -> None:
        deadline = time.monotonic() + _GATE_LIMIT
        while gate and not _open(gate) and time.monotonic() < deadline:
            self._reap()
            self._start_again()
            time.sleep(0.02)

    def _start(self, component: Running) -> None:
        log = INSIDE / "logs" / f"{component.name}.log"
        component.pid = os.posix_spawn(
            component.command[0],
            component.command,
            component.environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
        )
        component.started = time.monotonic()

    def _start_again(self) -> None:
        due = [c for c in self._components if c.pid == 0 and c.started and c.start_at <= time.monotonic()]
        for component in due:
            component.restarts += 1
            self._start(component)
        if due:
            self._tell()

    def _reap(self) -> None:
        ended = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for component in (c for c in self._components if c.pid == pid):  # orphans of pods are reaped, and that is all
                ended = True
                now = time.monotonic()
                component.pause = _FIRST_PAUSE if now - component.started > _STEADY else min(component.pause * 2, _LONGEST_PAUSE)
                component.pid, component.last_exit, component.start_at = 0, os.waitstatus_to_exitcode(status), now + component.pause
        if ended:
            self._tell()

    def _tell(self) -> None:
        content = [{"name": c.name, "running": c.pid != 0, "restarts": c.restarts, "last_exit": c.last_exit} for c in self._components]
        unfinished = INSIDE / f".{REPORT}"
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        unfinished.rename(INSIDE / REPORT)


def _open(gate: str) -> bool:
    """Whether somebody listens on a socket's path or on address:port."""
    family: Any
    target: Any
    if gate.startswith("/"):
        family, target = socket.AF_UNIX, gate
    else:
        host, _, port = gate.rpartition(":")
        family, target = socket.AF_INET, (host, int(port))
    with contextlib.suppress(OSError), socket.socket(family) as probe:
        probe.settimeout(1)
        probe.connect(target)
        return True
    return False


def _do(*command: str) -> None:
    subprocess.run(command, check=True, timeout=10)


def _mounts(directory: Path) -> None:
    _do("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for path in (INSIDE, SOCKETS):
        path.mkdir(mode=0o700)
    _do("mount", "--bind", str(directory), str(INSIDE))
    # What is mounted below these is hidden by the overlays; held here, it would stay busy for the rest of the machine.
    for mounted in reversed(Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()):
        where = mounted.split()[1].encode().decode("unicode_escape")
        if where.startswith(tuple(f"/{place}/" for place in _OVERLAID)):
            subprocess.run(["umount", "--lazy", where], check=False, timeout=10)
    for place in _OVERLAID:
        upper, work = Path(f"/run/overlay/{place}/upper"), Path(f"/run/overlay/{place}/work")
        for path in (upper, work):
            path.mkdir(parents=True)
        _do("mount", "-t", "overlay", "-o", f"lowerdir=/{place},upperdir={upper},workdir={work}", "overlay", f"/{place}")
    settings = Path("/run/settings")
    for name, value in _KERNEL_SETTINGS.items():
        real, own = Path("/proc/sys") / name, settings / name
        if real.exists():
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(f"{value}\n", encoding="ascii")
            _do("mount", "--bind", str(own), str(real))
    # What the kubelet mounts must be seen by containers, and by nobody outside: shared, among ourselves.
    _do("mount", "--make-rprivate", "/")
    _do("mount", "--make-rshared", "/")


def _network(node_address: str, services: str) -> None:
    _do("ip", "link", "set", "lo", "up")
    _do("ip", "address", "add", f"{node_address}/32", "dev", "lo")
    # A packet to a service needs a route before kube-proxy's rules turn it to a pod; there is no other way out.
    _do("ip", "route", "add", services, "dev", "lo", "src", node_address)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
