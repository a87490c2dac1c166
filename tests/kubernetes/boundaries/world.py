"""Everything that a case needs: the cluster, the fleet beneath, sites, nodes, proxies, and the operator's replicas."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from kind.control_plane import ControlPlane
from tests.fleet import Fleet
from tests.fleet.members import free_port
from tests.kubernetes.api import Api, Obj, administrator, trusted
from tests.kubernetes.api_proxy import ApiProxy
from tests.kubernetes.boundaries.recorder import Recorder, condition
from tests.kubernetes.boundaries.site import Sites
from tests.kubernetes.kubelet import COMMON, Kubelet
from tests.kubernetes.replica import Replica, kubeconfig

BASE = "notes"
"""The knowledge base of every namespace here."""
WORKERS = 2
FLEET = {
    "SHIELD_JOBS_LEASE": "6",
    "SHIELD_JOBS_HEARTBEAT": "1",
    "SHIELD_JOBS_MAX_RUNNING_PRINCIPAL": "100",
    "SHIELD_CRAWL_PAGE_TIMEOUT": "900",
    "SHIELD_LOG_LEVEL": "warning",
}
"""Leases as short as a busy machine allows; a page that a case holds back may take as long as the case."""
ROW_PATIENCE = 5
OPERATOR = {
    "SHIELD_OPERATOR_WORKER_IMAGE": "shield",
    "SHIELD_OPERATOR_LEASE_NAMESPACE": "shield-system",
    "SHIELD_OPERATOR_LEASE_DURATION": "6",
    "SHIELD_OPERATOR_RENEW_DEADLINE": "3.5",
    "SHIELD_OPERATOR_RETRY_PERIOD": "0.5",
    "SHIELD_OPERATOR_REQUEST_TIMEOUT": "2.5",
    "SHIELD_OPERATOR_RESYNC": "4",
    "SHIELD_OPERATOR_STALE_AFTER": "10",
    "SHIELD_OPERATOR_WATCH_INACTIVITY": "6",
    "SHIELD_OPERATOR_CRD_POLL": "0.2",
    "SHIELD_OPERATOR_PROGRESS_INTERVAL": "1",
    "SHIELD_OPERATOR_ROW_PATIENCE": str(ROW_PATIENCE),
    "SHIELD_OPERATOR_JOB_RETENTION": "2",
    "SHIELD_OPERATOR_RECHECK": "1",
    "SHIELD_OPERATOR_BACKOFF_MOST": "3",
    "SHIELD_OPERATOR_HOST": "127.0.0.1",
    "SHIELD_OPERATOR_LOG_FORMAT": "json",
}
"""Everything that waits, waits shortly; the sweep keeps its minute, because that is what is promised."""


@dataclass(eq=False)
class World:
    """What there is."""

    plane: ControlPlane
    fleet: Fleet
    api: Api
    sites: Sites
    kubelet: Kubelet
    recorder: Recorder
    orchestrator: ApiProxy
    replicas: dict[str, Replica]
    doors: dict[str, ApiProxy]
    """Of each replica to the API server."""
    patience: float
    """Seconds that one step of a case may take."""

    @property
    def replica(self) -> Replica:
        """The one that most cases have to do with."""
        return self.replicas["a"]

    @property
    def door(self) -> ApiProxy:
        """Its door."""
        return self.doors["a"]

    async def namespace(self, name: str) -> None:
        """A namespace with a knowledge base."""
        await self.api.create("namespaces", "", {"metadata": {"name": name}})
        await self._made("serviceaccounts", name, "default")  # pods need it
        base: Obj = {
            "apiVersion": "shield.hx-citadel.io/v1alpha1",
            "kind": "KnowledgeBase",
            "metadata": {"name": BASE},
            "spec": {"graph": False},
        }
        await self.api.create("knowledgebases", name, base)
        async with asyncio.timeout(60):
            while condition(await self.api.get("knowledgebases", name, BASE), "Ready").get("status") != "True":
                await asyncio.sleep(0.2)

    async def _made(self, plural: str, namespace: str, name: str) -> None:
        async with asyncio.timeout(60):
            while await self.api.find(plural, namespace, name) is None:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def world(plane: ControlPlane, fleet: Fleet, directory: Path, *, patience: float, sabotage: str = "") -> AsyncIterator[World]:
    """Connect everything; one replica `a` leads, a second one `b` is not running yet."""
    sites, admin = Sites(), Api(plane.url, administrator(plane.kubeconfig.parent))
    trust = trusted(plane.kubeconfig.parent)
    orchestrator, doors = ApiProxy(fleet.api_url), {name: ApiProxy(plane.url, ssl=trust) for name in ("a", "b")}
    async with sites, admin, orchestrator, doors["a"], doors["b"], asyncio.TaskGroup() as tasks:
        nodes = {"node-1": COMMON, "node-2": COMMON, "drain-1": "drain", "drain-2": "drain"}
        kubelet, recorder = Kubelet(admin, nodes, directory / "pods"), Recorder(admin)
        template = _template(directory, fleet, sites)
        replicas = {}
        for name, door in doors.items():
            config = kubeconfig(directory / f"operator-{name}.kubeconfig", door.url, plane)
            replicas[name] = _replica(name, directory, config, template, orchestrator.url, sabotage)
            door.kill = replicas[name].kill
        orchestrator.kill = replicas["a"].kill
        replicas["b"].wanted = False
        running = [tasks.create_task(kubelet.run()), tasks.create_task(recorder.run())]
        running += [tasks.create_task(replica.run()) for replica in replicas.values()]
        try:
            await replicas["a"].leads(120)
            yield World(plane, fleet, admin, sites, kubelet, recorder, orchestrator, replicas, doors, patience)
        finally:
            for task in running:
                task.cancel()


def _replica(name: str, directory: Path, config: Path, template: Path, orchestrator: str, sabotage: str) -> Replica:
    health, metrics = free_port(), free_port()
    environment = {
        **OPERATOR,
        "SHIELD_OPERATOR_IDENTITY": name,  # one that was killed need not wait for itself
        "SHIELD_OPERATOR_KUBECONFIG": str(config),
        "SHIELD_OPERATOR_POD_TEMPLATE_FILE": str(template),
        "SHIELD_OPERATOR_ORCHESTRATOR_URL": orchestrator,
        "SHIELD_OPERATOR_HEALTH_PORT": str(health),
        "SHIELD_OPERATOR_METRICS_PORT": str(metrics),
    }
    if sabotage:
        broken = str(Path(__file__).parent / "broken")
        environment |= {"SHIELD_BROKEN": sabotage, "PYTHONPATH": os.pathsep.join(filter(None, (broken, os.environ.get("PYTHONPATH"))))}
    return Replica(name, environment, directory / f"operator-{name}.log", health_port=health, metrics_port=metrics)


def _template(directory: Path, fleet: Fleet, sites: Sites) -> Path:
    """The platform engineer's part of every pod."""
    environment = {**fleet.environment, "SHIELD_EGRESS_ALLOW": sites.allow, "SHIELD_METRICS_PORT": "0", "SHIELD_LOG_LEVEL": "info"}
    worker = {
        "name": "worker",
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": {"requests": {"cpu": "100m"}},
    }
    path = directory / "pod.yaml"
    path.write_text(yaml.safe_dump({"spec": {"containers": [worker]}}), encoding="utf-8")
    return path
