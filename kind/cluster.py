"""A whole cluster of one node: `Cluster(settings).up()` and `.down()`.

All of it runs in one set of namespaces (processes, mounts, network, host name, IPC) whose first process is `kind.node`. The host sees one network
link, one directory of control groups in each hierarchy, and one directory of state; everything else exists only inside and is
gone when that first process is.

`up` may be called again at any time: what is done is not done again, and a start that was killed goes on where it was. `down` works
from whatever is there: a live cluster, half a start, the remains of a crash. Both hold one lock a machine's user, so they never meet.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import httpx
import psutil

from kind import cgroups, node, node_files
from kind.addresses import Addresses, choose, in_use
from kind.binaries import Store
from kind.catalogue import KUBERNETES, NODE, PAUSE
from kind.components import make_credentials
from kind.console import Report, step
from kind.errors import ComponentDied, DiskFull, KindError
from kind.images import push_program
from kind.kubectl import Kubectl, api_answers
from kind.node_plan import issue_node_credentials, plan, serving_of, write_files
from kind.prerequisites import ensure_prerequisites
from kind.settings import KindSettings
from kind.waiting import until

_RECORD = "cluster.json"
_COMMAND_TIMEOUT = 20.0
_TOOLS_FOR_PEOPLE = ("kubectl", "helm", "ctr")


class Cluster:
    """The cluster that the settings name."""

    def __init__(self, settings: KindSettings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self.store = Store(settings, report)
        self.directory = settings.state / settings.cluster
        self.cgroup = f"shield-{settings.cluster}"

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator."""
        return self.directory / "kubeconfig"

    @property
    def exists(self) -> bool:
        """Whether there is one, or what is left of one."""
        return (self.directory / _RECORD).exists()

    @cached_property
    def addresses(self) -> Addresses:
        """Chosen at its first start."""
        return Addresses(int(json.loads((self.directory / _RECORD).read_text(encoding="utf-8"))["number"]))

    @cached_property
    def kubectl(self) -> Kubectl:
        """As its administrator."""
        return Kubectl(self.store.directory(KUBERNETES) / "kubectl", self.kubeconfig)

    def first_process(self) -> psutil.Process | None:
        """The first process of its namespaces, if it lives."""
        return next((process for name, process in self._processes() if name != "unshare"), None)

    def api_ready(self) -> bool:
        """Whether the API server says that it is ready."""
        return api_answers(serving_of(self.addresses).url, self.directory)

    def up(self) -> None:
        """Start it, or finish its start; returns when the node is ready and the cluster's names resolve.

        Raises:
            KindError: it cannot start; what was started is left for a look at its logs, and `down` removes it.
        """
        with step(self._report, "prerequisites"):
            ensure_prerequisites(self._report)
        self.store.ensure(NODE)
        with self._lock():
            if self.first_process() is None:
                self._clean()
                with step(self._report, "certificates and configuration"):
                    self._prepare()
                self._launch()
            self._connect()
            self._converge()

    def down(self) -> bool:
        """End it and remove its traces; says whether there was anything.

        Raises:
            KindError: something did not go in time; it is named.
        """
        with self._lock():
            found = self.exists or self.first_process() is not None
            with step(self._report, "processes, mounts, links, control groups and state"):
                self._clean()
            return found

    def _prepare(self) -> None:
        free = shutil.disk_usage(self._settings.state).free
        if free < self._settings.run_free_disk:
            needed = self._settings.run_free_disk / 1024**3
            raise DiskFull(f"a cluster needs {needed:.0f} GiB of free disk under {self._settings.state}, there are {free / 1024**3:.1f}")
        self.directory.mkdir(mode=0o700)
        addresses = choose(in_use())
        # Written first: whatever comes after it, `down` knows what to remove.
        (self.directory / _RECORD).write_text(json.dumps({"number": addresses.number}), encoding="utf-8")
        self.__dict__.pop("addresses", None)
        authority = make_credentials(self.directory, serving_of(addresses))
        issue_node_credentials(self.directory, authority, addresses)
        runc = shutil.which("runc") or "/usr/sbin/runc"
        write_files(self.directory, addresses, self.store, runc=runc, cgroup=self.cgroup)
        components = [asdict(component) for component in plan(self.store, addresses)]
        content = {
            "hostname": node_files.NODE_NAME,
            "node_address": addresses.node,
            "services": addresses.services,
            "components": components,
        }
        (self.directory / node.PLAN).write_text(json.dumps(content, indent=2), encoding="utf-8")
        for name in _TOOLS_FOR_PEOPLE:
            link = self.directory / "bin" / name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(next(self.store.directory(tool) / name for tool in NODE if name in tool.programs))
        memory = min(int(self._settings.pods_memory), psutil.virtual_memory().total * 3 // 4)
        cgroups.prepare(self.cgroup, memory=memory)

    def _launch(self) -> None:
        namespaces = ["--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--mount", "--net", "--uts", "--ipc"]
        # -I: that process needs nothing but the standard library, so nothing of this environment may reach it.
        program = [sys.executable, "-I", node.__file__, str(self.directory)]
        with (self.directory / "logs" / "node.log").open("ab") as log:
            command = ["setsid", "--fork", "unshare", *namespaces, *program]
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_COMMAND_TIMEOUT, check=True, cwd="/")
        until("the first process of the namespaces", lambda: self.first_process() is not None, limit=_COMMAND_TIMEOUT)

    def _connect(self) -> None:
        """One link into the cluster, and routes to its node, services and pods; no way from it to anywhere."""
        first, addresses = self.first_process(), self.addresses
        if first is None:
            raise ComponentDied(f"the cluster ended at once:\n{self._log('node')}")
        if not _link_exists(addresses.link):
            self._run("ip", "link", "add", addresses.link, "type", "veth", "peer", "name", "outside", "netns", str(first.pid))
        inside = ["nsenter", f"--net=/proc/{first.pid}/ns/net"]
        self._run(*inside, "ip", "address", "replace", f"{addresses.inside}/30", "dev", "outside")
        self._run(*inside, "ip", "link", "set", "outside", "up")
        self._run("ip", "address", "replace", f"{addresses.outside}/30", "dev", addresses.link)
        self._run("ip", "link", "set", addresses.link, "up")
        for network in (f"{addresses.node}/32", addresses.services, addresses.pods):
            self._run("ip", "route", "replace", network, "via", addresses.inside, "dev", addresses.link)

    def _converge(self) -> None:
        addresses, limit = self.addresses, self._settings.ready_timeout
        with step(self._report, "API server ready"):
            self._until("the API server's /readyz", self.api_ready, ("etcd", "kube-apiserver"))
        with step(self._report, "DNS service, pause image"):
            self.kubectl.run("apply", "--server-side", "--force-conflicts", "-f", "-", input=node_files.manifests(addresses))
            self._until("the registry", lambda: _answers(f"http://{addresses.registry}/v2/"), ("registry",))
            repository, _, tag = node_files.PAUSE_IMAGE.partition("/")[2].partition(":")
            push_program(addresses.registry, repository, tag, self.store.directory(PAUSE) / "pause")
        with step(self._report, "node ready"):
            self._until("the node", self._node_exists, ("containerd", "kubelet"))
            self.kubectl.run("wait", "--for=condition=Ready", f"node/{node_files.NODE_NAME}", f"--timeout={limit:.0f}s", timeout=limit + 10)
        with step(self._report, "names resolve, pods may be made"):
            self._until("CoreDNS", lambda: _answers(f"http://{addresses.node}:{node_files.DNS_READY_PORT}/ready"), ("coredns",))
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            url = serving_of(addresses).url
            self._until("the namespace default", lambda: api_answers(url, self.directory, account), ("kube-controller-manager",))

    def _node_exists(self) -> bool:
        return api_answers(serving_of(self.addresses).url, self.directory, f"/api/v1/nodes/{node_files.NODE_NAME}")

    def _until(self, what: str, ready: Callable[[], bool], watched: Sequence[str]) -> None:
        """Wait, but not for something whose process cannot run; the end of its log is in the error."""

        def check() -> bool:
            if self.first_process() is None:
                raise ComponentDied(f"the cluster ended while {what} was waited for:\n{self._log('node')}")
            return ready()

        try:
            until(what, check, limit=self._settings.ready_timeout, pause=0.1)
        except KindError as error:
            logs = "\n".join(f"-- {name}:\n{self._log(name)}" for name in watched)
            raise type(error)(f"{error}\n{logs}", f"Logs: {self.directory}/logs. Remove it with: make cluster-down") from None

    def _clean(self) -> None:
        limit = self._settings.stop_timeout
        # The inner one first: the outer one only waits for it.
        found = [process for _, process in sorted(self._processes(), key=lambda named: named[0] == "unshare")]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # By their numbers: the first process loses its command line at once, and then waits for all the others to end.
        until("an end of the cluster's processes", lambda: all(map(_ended, found)), limit=limit)
        if self.exists:
            link = self.addresses.link
            # The link goes with the namespace's end of it, unless the start was killed in between.
            if _link_exists(link) and not self._link_goes_by_itself(link):
                self._run("ip", "link", "delete", link)
        cgroups.remove(self.cgroup, limit=limit)
        self._remove_state()
        self.__dict__.pop("addresses", None)

    def _link_goes_by_itself(self, link: str) -> bool:
        try:
            until(f"an end of the link {link}", lambda: not _link_exists(link), limit=min(5.0, self._settings.stop_timeout))
        except KindError:
            return False
        return True

    def _remove_state(self) -> None:
        below = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
        if mounted := [path for path in below if path.startswith(f"{self.directory}/")]:
            raise KindError(f"something is mounted under {self.directory}: {', '.join(mounted)}", "Unmount it, then: make cluster-down")
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """`unshare` and the first process: both name this cluster's directory, and no other cluster's."""
        tail = [node.__file__, str(self.directory)]
        for process in psutil.process_iter():
            try:
                if process.cmdline()[-2:] == tail and (name := process.name()) != "setsid":
                    yield name, process
            except psutil.Error:  # it ended while we looked
                continue

    def _log(self, component: str) -> str:
        path = self.directory / "logs" / f"{component}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        return "\n".join(lines[-8:]) or "(nothing)"

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT, check=False)
        if done.returncode != 0:
            raise KindError(f"{' '.join(command)}: {done.stderr.strip()}")

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._settings.state / "lock").open("w") as file:

            def taken() -> bool:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                return True

            until("an end of another start or stop", taken, limit=self._settings.ready_timeout + self._settings.stop_timeout)
            yield


def _ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _link_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _answers(url: str) -> bool:
    try:
        with httpx.Client(trust_env=False, timeout=2) as client:
            return client.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
