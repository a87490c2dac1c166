"""Nodes without containers: the pods that the scheduler gives them run here for real, each as a process of this machine.

A pod's container `worker` becomes its command with its environment; emptyDirs are directories, a downwardAPI volume is written from the pod's
metadata, and the paths at which they are mounted are replaced in command and environment. The pod's status is told as a kubelet tells it: Running and
Ready, then terminated with the exit code and the end of the log; a deleted pod gets SIGTERM, its time of grace, SIGKILL, and is then removed. So Job
controller, eviction and garbage collection see what they would see on a node.

What goes wrong is asked for: `Behaviour` (pods that never start, or only exit with a code), `out_of_memory`, `evict`. `runs` is the record of
all processes, by which a proof sees two that ran for one IngestJob at the same time.

It isolates nothing: for commands of our own only.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.kubernetes.api import STRATEGIC, Api, ApiError, Obj

OWNER_LABEL = "shield.hx-citadel.io/ingestjob"
POOL_LABEL = "shield.test/pool"
COMMON = "common"
_CONTAINER = "worker"
_LOG_TAIL = 2048
_HEARTBEAT = 10.0
_KILLED = 137
_ROOM = {"cpu": "64", "memory": "64Gi", "ephemeral-storage": "1Ti", "pods": "500"}


@dataclass(frozen=True)
class Behaviour:
    """What the pods of one IngestJob do instead of their command."""

    starts: bool = True
    exits: tuple[int, ...] = ()
    """The first pod ends at once with the first code, and so on; after the last one, pods run their command."""
    always: int | None = None
    """All pods end at once with this code."""


@dataclass(eq=False)
class Run:
    """One pod's process."""

    namespace: str
    ingestjob: str
    job: str
    pod: str
    uid: str
    node: str
    began: float
    ended: float | None = None
    code: int | None = None
    process: asyncio.subprocess.Process | None = None
    oom: bool = False
    evicted: bool = False
    log: Path = Path(os.devnull)

    @property
    def lives(self) -> bool:
        """Its process runs."""
        return self.process is not None and self.ended is None


@dataclass
class _Pod:
    obj: Obj
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def leaving(self) -> float | None:
        """Seconds of grace, once it is deleted."""
        meta = self.obj["metadata"]
        return float(meta.get("deletionGracePeriodSeconds") or 0) if "deletionTimestamp" in meta else None


class Kubelet:
    """The nodes; `run` until cancelled."""

    def __init__(self, api: Api, nodes: dict[str, str], directory: Path) -> None:
        """Nothing runs yet.

        Args:
            api: the API server.
            nodes: their names, and the pool that each is of; those of another pool than `common` must be asked for by label and toleration.
            directory: where the pods' files go.
        """
        self._api = api
        self._nodes = nodes
        self._directory = directory
        self._pods: dict[str, _Pod] = {}
        self._behaviours: dict[tuple[str, str], Behaviour] = {}
        self._begun: dict[tuple[str, str], int] = {}
        self.runs: list[Run] = []

    def behave(self, namespace: str, ingestjob: str, behaviour: Behaviour) -> None:
        """Of all its pods that start from now on."""
        self._behaviours[namespace, ingestjob] = behaviour

    def of(self, namespace: str, ingestjob: str = "") -> list[Run]:
        """Its processes, the oldest first."""
        return [run for run in self.runs if run.namespace == namespace and ingestjob in {"", run.ingestjob}]

    def living(self, namespace: str, ingestjob: str = "") -> list[Run]:
        """Those that run now."""
        return [run for run in self.of(namespace, ingestjob) if run.lives]

    def out_of_memory(self, run: Run) -> None:
        """What the kernel does to a container past its limit."""
        run.oom = True
        _send(run, signal.SIGKILL)

    def evict(self, run: Run) -> None:
        """What a kubelet under pressure does: the pod fails as Evicted, with the condition DisruptionTarget."""
        run.evicted = True
        _send(run, signal.SIGTERM)

    async def run(self) -> None:
        """Register the nodes, keep them alive, run what they are given."""
        for name, pool in self._nodes.items():
            await self._register(name, pool)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            async for event, obj in self._api.watch("pods"):
                if obj["spec"].get("nodeName") not in self._nodes:
                    continue
                uid = obj["metadata"]["uid"]
                known = self._pods.get(uid)
                if known is not None:
                    known.obj = obj
                    known.changed.set()
                elif event != "DELETED" and obj.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
                    self._pods[uid] = pod = _Pod(obj)
                    tasks.create_task(self._life(pod))
                elif event != "DELETED" and "deletionTimestamp" in obj["metadata"]:
                    tasks.create_task(self._gone(obj))

    async def _register(self, name: str, pool: str) -> None:
        labels = {"kubernetes.io/hostname": name, POOL_LABEL: pool}
        node: Obj = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": [{"key": POOL_LABEL, "value": pool, "effect": "NoSchedule"}] if pool != COMMON else []},
            "status": {"allocatable": _ROOM, "capacity": _ROOM, "conditions": [_condition("Ready", "True", "KubeletReady")]},
        }
        await self._api.create("nodes", "", node)

    async def _beat(self) -> None:
        while True:
            for name in self._nodes:
                conditions = [{**_condition("Ready", "True", "KubeletReady"), "lastHeartbeatTime": _now()}]
                with suppress(ApiError, TimeoutError, OSError):  # the next beat comes soon enough
                    await self._api.patch("nodes", "", name, {"status": {"conditions": conditions}}, "status", kind=STRATEGIC)
            await asyncio.sleep(_HEARTBEAT)

    # -- one pod ------------------------------------------------------------------------------------------------------

    async def _life(self, pod: _Pod) -> None:
        meta = pod.obj["metadata"]
        owner = meta.get("labels", {}).get(OWNER_LABEL, "")
        key = (meta["namespace"], owner)
        behaviour = self._behaviours.get(key, Behaviour())
        if not behaviour.starts:
            await self._waits(pod)
            return
        number = self._begun[key] = self._begun.get(key, 0) + 1
        code = behaviour.always
        if code is None and number <= len(behaviour.exits):
            code = behaviour.exits[number - 1]
        run = Run(
            meta["namespace"],
            owner,
            meta["labels"].get("batch.kubernetes.io/job-name", ""),
            meta["name"],
            meta["uid"],
            pod.obj["spec"]["nodeName"],
            time.monotonic(),
        )
        self.runs.append(run)
        await self._start(pod, run, code)
        try:
            await self._status(pod.obj, "Running", _running())
            await self._ends(pod, run)
        finally:
            _send(run, signal.SIGKILL)
            if run.process is not None:
                await run.process.wait()
        await self._tell_end(pod, run)
        while pod.leaving is None:
            pod.changed.clear()
            await pod.changed.wait()
        await self._gone(pod.obj)

    async def _waits(self, pod: _Pod) -> None:
        waiting = {"name": _CONTAINER, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "held back"}}, **_CONTAINER_STATUS}
        await self._status(pod.obj, "Pending", waiting)
        while pod.leaving is None:
            pod.changed.clear()
            await pod.changed.wait()
        await self._status(
            pod.obj, "Failed", {**waiting, "state": {"terminated": {"exitCode": _KILLED, "reason": "ContainerStatusUnknown"}}}
        )
        await self._gone(pod.obj)

    async def _start(self, pod: _Pod, run: Run, code: int | None) -> None:
        home = self._directory / run.uid
        home.mkdir(parents=True)
        run.log = home / "log"
        container = next(one for one in pod.obj["spec"]["containers"] if one["name"] == _CONTAINER)
        places = _mount(pod.obj, container, home)
        words = ["shield", *(_placed(word, places) for word in container["args"])]  # the image's entry point and its arguments
        command = ["sh", "-c", f"exit {code}"] if code is not None else _program(words)
        environment = {one["name"]: _placed(one.get("value", ""), places) for one in container.get("env", ())} | _SHARED_NETWORK
        with run.log.open("ab") as log:
            run.process = await asyncio.create_subprocess_exec(
                "setpriv", "--pdeathsig=KILL", *command,
                env={**os.environ, **environment}, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    async def _ends(self, pod: _Pod, run: Run) -> None:
        """Wait for the process; a deleted pod's is told to end, and made to."""
        if run.process is None:
            return
        over = asyncio.create_task(run.process.wait())
        try:
            while not over.done():
                if pod.leaving is not None:
                    _send(run, signal.SIGTERM)
                    await asyncio.wait({over}, timeout=pod.leaving)
                    _send(run, signal.SIGKILL)
                    await over
                    break
                pod.changed.clear()
                news = asyncio.create_task(pod.changed.wait())
                await asyncio.wait({over, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            over.cancel()
        code = run.process.returncode or 0
        run.code = 128 - code if code < 0 else code
        run.ended = time.monotonic()

    async def _tell_end(self, pod: _Pod, run: Run) -> None:
        reason = "OOMKilled" if run.oom else "Completed" if run.code == 0 else "Error"
        said = run.log.read_bytes()[-_LOG_TAIL:].decode(errors="replace") if run.code else ""
        state = {"terminated": {"exitCode": run.code, "reason": reason, "message": said, "startedAt": _now(), "finishedAt": _now()}}
        ended = {"name": _CONTAINER, "state": state, **_CONTAINER_STATUS}
        more: Obj = {}
        if run.evicted:
            target = _condition("DisruptionTarget", "True", "TerminationByKubelet")
            more = {"reason": "Evicted", "message": "The node was low on resource: memory.", "conditions": [target]}
        await self._status(pod.obj, "Succeeded" if run.code == 0 and not run.evicted else "Failed", ended, more)

    async def _status(self, obj: Obj, phase: str, container: Obj, more: Obj | None = None) -> None:
        """Tell it; a pod that is gone needs none."""
        ready = "True" if phase == "Running" else "False"
        conditions = [_condition(name, ready) for name in ("Ready", "ContainersReady")] + list((more or {}).get("conditions", ()))
        status = {**(more or {}), "phase": phase, "conditions": conditions, "containerStatuses": [container]}
        meta = obj["metadata"]
        body = {"metadata": {"uid": meta["uid"]}, "status": {**status, "startTime": meta["creationTimestamp"]}}
        while True:
            try:
                await self._api.patch("pods", meta["namespace"], meta["name"], body, "status", kind=STRATEGIC)
            except ApiError as error:
                if error.status in {404, 409}:  # gone, or another pod of that name
                    return
                await asyncio.sleep(0.5)
            except (TimeoutError, OSError):
                await asyncio.sleep(0.5)
            else:
                return

    async def _gone(self, obj: Obj) -> None:
        meta = obj["metadata"]
        with suppress(ApiError):
            await self._api.delete("pods", meta["namespace"], meta["name"], gracePeriodSeconds=0, preconditions={"uid": meta["uid"]})
        self._pods.pop(meta["uid"], None)


_SHARED_NETWORK = {"SHIELD_HOST": "127.0.0.1", "SHIELD_METRICS_PORT": "0"}
"""A pod has addresses and ports of its own; these processes share the machine's."""

_CONTAINER_STATUS: Obj = {"image": "shield", "imageID": "", "ready": False, "restartCount": 0}


def _running() -> Obj:
    return {"name": _CONTAINER, **_CONTAINER_STATUS, "ready": True, "started": True, "state": {"running": {"startedAt": _now()}}}


def _condition(type_: str, status: str, reason: str = "") -> Obj:
    return {"type": type_, "status": status, "lastTransitionTime": _now(), **({"reason": reason} if reason else {})}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _send(run: Run, number: signal.Signals) -> None:
    """To the container: the process and whatever it started."""
    if run.process is not None and run.process.returncode is None:
        with suppress(ProcessLookupError):
            if number is signal.SIGTERM:
                run.process.terminate()
            else:
                os.killpg(run.process.pid, number)


def _mount(pod: Obj, container: Obj, home: Path) -> dict[str, str]:
    """Make the volumes; which path of the container is which of ours."""
    places = {}
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        volume = volumes[mount["name"]]
        directory = home / mount["name"]
        directory.mkdir(mode=0o700, exist_ok=True)
        for item in volume.get("downwardAPI", {}).get("items", ()):
            (directory / item["path"]).write_text(_field(pod, item["fieldRef"]["fieldPath"]), encoding="utf-8")
        places[mount["mountPath"]] = str(directory)
    return places


def _field(pod: Obj, where: str) -> str:
    """`metadata.annotations['key']`."""
    group, _, key = where.partition("['")
    value: Any = pod
    for part in group.split("."):
        value = value[part]
    return str(value[key.removesuffix("']")] if key else value)


def _placed(word: str, places: dict[str, str]) -> str:
    """With the container's paths replaced by ours."""
    for inside, outside in sorted(places.items(), key=lambda pair: -len(pair[0])):
        if word == inside or word.startswith(f"{inside}/"):
            return outside + word[len(inside) :]
    return word


def _program(command: Sequence[str]) -> list[str]:
    """`shield` is the one of this interpreter."""
    return [sys.executable, "-m", "shield", *command[1:]] if command[0] == "shield" else list(command)
