"""The test bed: a control plane, a database and an orchestrator, and one replica of the operator with its defaults; what each process uses."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from kind.control_plane import ControlPlane
from tests.bench.operator.load import Outcome
from tests.fleet import Fleet
from tests.fleet.members import free_port
from tests.kubernetes.api import Api, Obj, administrator, trusted
from tests.kubernetes.api_proxy import ApiProxy
from tests.kubernetes.replica import Replica, kubeconfig

BASE = "notes"
_KWOK = {
    "nodeSelector": {"kwok.x-k8s.io/node": "fake"},
    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
}


@dataclass(eq=False)
class Bed:
    """What a measurement needs."""

    plane: ControlPlane
    fleet: Fleet
    api: Api
    replica: Replica
    door: ApiProxy | None
    """Between the operator and the API server, where writes are counted."""
    directory: Path

    async def namespace(self, name: str) -> None:
        """A namespace with a knowledge base that is ready."""
        await self.api.create("namespaces", "", {"metadata": {"name": name}})
        base: Obj = {
            "apiVersion": "shield.hx-citadel.io/v1alpha1",
            "kind": "KnowledgeBase",
            "metadata": {"name": BASE},
            "spec": {"graph": False},
        }
        await self.api.create("knowledgebases", name, base)
        async with asyncio.timeout(120):
            while not _ready(await self.api.get("knowledgebases", name, BASE)):
                await asyncio.sleep(0.2)

    async def load(self, namespace: str, *, rate: float, seconds: float = 0, count: int = 0, wait: bool = True, **spec: Any) -> Outcome:
        """Run the generator."""
        command = [
            sys.executable, "-m", "tests.bench.operator.load", "--url", self.plane.url, "--keys", str(self.plane.kubeconfig.parent),
            "--namespace", namespace, "--rate", str(rate), "--seconds", str(seconds), "--count", str(count), "--spec", json.dumps(spec),
            *([] if wait else ["--no-wait"]),
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        if process.returncode:
            raise AssertionError(f"the load generator ended with {process.returncode}")
        return Outcome(**json.loads(said))

    def processor(self) -> dict[str, float]:
        """Seconds of processor time that each process has used so far; 0 of one that does not run."""
        pids = {**self.plane.processes, "operator": self.replica.pid, "orchestrator": self.fleet.apis[0].pid}
        return {name: _used(pid) for name, pid in pids.items()}

    def memory(self) -> float:
        """Of the operator, resident, in MiB."""
        return float(psutil.Process(self.replica.pid).memory_info().rss / 2**20)

    async def restart(self) -> float:
        """End the operator and start it anew: seconds from its start until it leads and every key was reconciled."""
        await self.replica.down(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.replica.up()
        await self.replica.leads(600)
        await self.replica.idle(600)
        return loop.time() - began


@asynccontextmanager
async def bed(
    plane: ControlPlane,
    fleet: Fleet,
    directory: Path,
    *,
    counted: bool = False,
    kwok: bool = False,
    profile: Path | None = None,
    **settings: str,
) -> AsyncIterator[Bed]:
    """Start the operator.

    Args:
        plane: the API server; CRDs and permissions are installed.
        fleet: the orchestrator.
        directory: for logs.
        counted: put the proxy that counts writes in front of the API server, which costs time.
        kwok: pods go to the node that KWOK plays.
        profile: run the operator under cProfile, which writes there at its end.
        **settings: of the operator, by field name, beside its defaults.
    """
    directory.mkdir(parents=True, exist_ok=True)
    template = directory / "pod.yaml"
    template.write_text(yaml.safe_dump({"spec": _KWOK if kwok else {}}), encoding="utf-8")
    health, metrics = free_port(), free_port()
    door = ApiProxy(plane.url, ssl=trusted(plane.kubeconfig.parent)) if counted else None
    async with Api(plane.url, administrator(plane.kubeconfig.parent)) as api, _maybe(door):
        given = {
            "worker_image": "shield",
            "lease_namespace": "shield-system",
            "identity": "bench",
            "kubeconfig": str(kubeconfig(directory / "operator.kubeconfig", door.url if door else plane.url, plane)),
            "pod_template_file": str(template),
            "orchestrator_url": fleet.api_url,
            "host": "127.0.0.1",
            "health_port": str(health),
            "metrics_port": str(metrics),
            "log_format": "json",
            **settings,
        }
        run = ("-m", "shield_operator.main", "run")
        replica = Replica(
            "bench",
            {f"SHIELD_OPERATOR_{name.upper()}": value for name, value in given.items()},
            directory / "operator.log",
            health_port=health,
            metrics_port=metrics,
            command=("-m", "cProfile", "-o", str(profile), *run) if profile else run,
        )
        running = asyncio.create_task(replica.run())
        try:
            await replica.leads(120)
            yield Bed(plane, fleet, api, replica, door, directory)
            await replica.down(signal.SIGTERM)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def _maybe(door: ApiProxy | None) -> AsyncIterator[None]:
    if door is None:
        yield
    else:
        async with door:
            yield


def shares(before: dict[str, float], after: dict[str, float], seconds: float) -> dict[str, float]:
    """Of one core, each process's share of `seconds`, the largest first."""
    used = {name: (after[name] - before[name]) / seconds for name in before if name in after}
    return dict(sorted(used.items(), key=lambda pair: -pair[1]))


def busiest(share: dict[str, float], most: int = 4) -> str:
    """In words."""
    return ", ".join(f"{name} {part:.2f}" for name, part in list(share.items())[:most])


def _used(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _ready(base: Obj) -> bool:
    conditions: Sequence[Obj] = base.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
