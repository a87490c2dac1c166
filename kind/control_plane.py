"""A real API server for tests: etcd, kube-apiserver and the controllers as ordinary processes on 127.0.0.1.

No root, no containers, no node: pods stay Pending, unless KWOK plays the nodes. Everything else is the real thing, storage,
admission, RBAC, watches, Jobs, garbage collection. Processes die with the thread that started them, even if it is killed, and
with the `with` block. The data lies in the directory that the caller gives and is left there, logs included.

    with ControlPlane(tmp_path) as plane:
        plane.kubectl("apply", "-f", "-", input=manifest)

The API server's port is one that was free a moment before. If somebody else took it, the start fails and says so.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kind import components
from kind.binaries import Store
from kind.catalogue import ETCD, KUBERNETES, KWOK
from kind.components import FAKE_NODE, Component, Credentials, Serving
from kind.console import Report, to_stderr
from kind.errors import ComponentDied
from kind.kubectl import Kubectl, api_answers
from kind.settings import KindSettings
from kind.waiting import until


class ControlPlane:
    """One control plane; a context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        controllers: bool = True,
        kwok: bool = False,
        scheduler: bool | None = None,
        apiserver_flags: Sequence[str] = (),
        settings: KindSettings | None = None,
        report: Report = to_stderr,
    ) -> None:
        """Nothing runs yet.

        Args:
            directory: Where data, logs, keys and the kubeconfig go; made if it is missing.
            controllers: Run the controller-manager: service accounts, Jobs, garbage collection.
            kwok: Run KWOK with one fake node, and the scheduler.
            scheduler: Run the scheduler; by default only with KWOK.
            apiserver_flags: More flags for the API server.
            settings: Limits and places; by default the environment's.
            report: Told what is built, if something is.
        """
        self._directory = directory
        self._settings = settings or KindSettings()
        self._store = Store(self._settings, report)
        self._kubectl = Kubectl(self._store.directory(KUBERNETES) / "kubectl", self.kubeconfig)
        self._controllers = controllers
        self._kwok = kwok
        self._scheduler = kwok if scheduler is None else scheduler
        self._apiserver_flags = tuple(apiserver_flags)
        self._serving = Serving("127.0.0.1", 0, "10.96.0.0/16", "10.96.0.1")
        self._components: dict[str, Component] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._sockets: Path | None = None

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator."""
        return self._directory / "kubeconfig"

    @property
    def url(self) -> str:
        """Of the API server."""
        return self._serving.url

    @property
    def processes(self) -> dict[str, int]:
        """Process ids by component: `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kwok`."""
        return {name: process.pid for name, process in self._running.items()}

    def log(self, component: str) -> str:
        """What a component has said."""
        return (self._directory / "logs" / f"{component}.log").read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        self._store.ensure([ETCD, KUBERNETES, *([KWOK] if self._kwok else [])])
        (self._directory / "logs").mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        # A socket's path has a limit of 107 characters that a test's directory easily passes.
        self._sockets = Path(tempfile.mkdtemp(prefix="shield-etcd-"))
        try:
            self._start_all(self._sockets)
        except BaseException:  # passes on: `with` calls `__exit__` only after a start that succeeded
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name in reversed(list(self._running)):
            self.kill(name)
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def kill(self, component: str) -> None:
        """End a component at once, as a crash would; `start` brings it back with its data."""
        process = self._running.pop(component)
        process.kill()
        process.wait(self._settings.stop_timeout)

    def start(self, component: str) -> None:
        """Start a component that was killed, and wait until the API server is ready again.

        Raises:
            ComponentDied: it ended at once; the end of its log is in the message.
            NotReadyInTime: the API server is not ready.
        """
        found = self._components[component]
        with (self._directory / "logs" / f"{component}.log").open("ab") as log:
            self._running[component] = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *found.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if component == "kube-apiserver":
            until("the API server's /readyz", self._ready, limit=self._settings.ready_timeout)

    def kubectl(self, *arguments: str, input: str | None = None, timeout: float = 60) -> str:  # noqa: A002 (subprocess calls it that)
        """What `kubectl` prints.

        Raises:
            KubectlFailed: it said no, or took longer than `timeout` seconds.
        """
        return self._kubectl.run(*arguments, input=input, timeout=timeout)

    def get(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`, parsed."""
        return self._kubectl.get(*arguments)

    def add_fake_node(self, name: str) -> None:
        """A node that KWOK plays: it takes 10 000 pods that select the label `kwok.x-k8s.io/node=fake` and tolerate that taint."""
        room = {"cpu": "100000", "memory": "100Ti", "pods": "10000"}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "annotations": {FAKE_NODE: "fake"}, "labels": {FAKE_NODE: "fake", "kubernetes.io/hostname": name}},
            "spec": {"taints": [{"key": FAKE_NODE, "value": "fake", "effect": "NoSchedule"}]},
            "status": {"allocatable": room, "capacity": room, "phase": "Running"},
        }
        self.kubectl("create", "-f", "-", input=json.dumps(node))

    def _start_all(self, sockets: Path) -> None:
        serving = Serving("127.0.0.1", free_port(), self._serving.services, self._serving.service_address)
        self._serving = serving
        components.make_credentials(self._directory, serving)
        self._components = {found.name: found for found in self._all(Credentials(self._directory), sockets)}
        for name in self._components:
            self.start(name)
        if self._controllers:
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            until("the namespace default", lambda: api_answers(self.url, self._directory, account), limit=self._settings.ready_timeout)
        if self._kwok:
            self.add_fake_node("kwok-0")

    def _all(self, credentials: Credentials, sockets: Path) -> list[Component]:
        kubernetes = self._store.directory(KUBERNETES)
        found = [
            components.etcd(self._store.directory(ETCD) / "etcd", data=self._directory / "etcd", sockets=sockets),
            components.apiserver(
                kubernetes / "kube-apiserver",
                self._serving,
                credentials,
                sockets=sockets,
                # The service `kubernetes` may not have a loopback address behind it.
                extra=["--endpoint-reconciler-type=none", *self._apiserver_flags],
            ),
        ]
        if self._controllers:
            found.append(components.controller_manager(kubernetes / "kube-controller-manager", credentials))
        if self._scheduler:
            found.append(components.scheduler(kubernetes / "kube-scheduler", credentials))
        if self._kwok:
            found.append(components.kwok(self._store.directory(KWOK) / "kwok", credentials.kubeconfig, port=free_port()))
        return found

    def _ready(self) -> bool:
        for name, process in self._running.items():
            if process.poll() is not None:
                last = "\n".join(self.log(name).splitlines()[-10:])
                raise ComponentDied(f"{name} ended with {process.returncode}:\n{last}")
        return api_answers(self.url, self._directory)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
