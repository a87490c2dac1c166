"""Replicas of the operator, started again when they end, as a Deployment would; their permissions and their kubeconfig."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from kind.control_plane import ControlPlane
from tests.kubernetes.operator_process import ROOT, install_crds

_SKIPPED = {"Deployment", "ConfigMap", "PodDisruptionBudget", "Service", "NetworkPolicy"}
"""Kinds of the manifest that need nodes, or have nothing to do here."""
_PAUSE = 0.2
"""Before it is started again."""


def end_in_order() -> None:
    """From now on SIGTERM ends this process as an exception would: whatever it started is ended, too."""

    def leave(*_: object) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, leave)


class Replica:
    """One replica; `run` until cancelled."""

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        log: Path,
        *,
        health_port: int,
        metrics_port: int,
        command: Sequence[str] = ("-m", "shield_operator.main", "run"),
    ) -> None:
        """Nothing runs yet, and nothing will while `wanted` is False."""
        self.name = name
        self.log = log
        self.wanted = True
        self.exits: list[int] = []
        """How its processes ended; -9: killed."""
        self._environment = dict(environment)
        self._health = f"http://127.0.0.1:{health_port}"
        self._metrics = f"http://127.0.0.1:{metrics_port}/metrics"
        self._command = tuple(command)
        self._process: asyncio.subprocess.Process | None = None
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Start it again and again."""
        try:
            while True:
                while not self.wanted:
                    self._wake.clear()
                    await self._wake.wait()
                with self.log.open("ab") as log:
                    self._process = await asyncio.create_subprocess_exec(
                        "setpriv", "--pdeathsig=KILL", sys.executable, *self._command,
                        env={**os.environ, **self._environment}, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                    )  # fmt: skip
                self.exits.append(await self._process.wait())
                await asyncio.sleep(_PAUSE)
        finally:
            self.send(signal.SIGKILL)
            if self._process is not None:
                await self._process.wait()

    @property
    def pid(self) -> int:
        """Of its process."""
        if self._process is None:
            raise AssertionError(f"operator {self.name} does not run")
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send it, if there is a process."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """As a crash would."""
        self.send(signal.SIGKILL)

    async def down(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and leave it so."""
        self.wanted = False
        self.send(number)
        process = self._process
        if process is not None:
            async with asyncio.timeout(30):
                await process.wait()

    def up(self) -> None:
        """Let it run again."""
        self.wanted = True
        self._wake.set()

    async def leads(self, limit: float = 90) -> float:
        """Wait until it does, with caches that hold what the API server has; seconds that took."""
        return await self._until({"synced": True, "leading": True}, limit)

    async def waits(self, limit: float = 90) -> float:
        """Wait until it is a standby whose caches are filled."""
        return await self._until({"synced": True, "leading": False}, limit)

    async def _until(self, wanted: dict[str, bool], limit: float) -> float:
        began = time.monotonic()
        said = None
        while time.monotonic() < began + limit:
            said = await self._state()
            if said == wanted:
                return time.monotonic() - began
            await asyncio.sleep(0.1)
        raise AssertionError(f"operator {self.name} is {said} after {limit:.0f} s, not {wanted}:\n{self.tail()}")

    async def _state(self) -> Any:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
                session.get(f"{self._health}/readyz") as answer,
            ):
                return await answer.json()
        return None

    async def is_leading(self) -> bool:
        """It says so now."""
        return bool((await self._state() or {}).get("leading"))

    async def idle(self, limit: float = 60) -> None:
        """Wait until no key waits and none is worked on."""
        until = time.monotonic() + limit
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while time.monotonic() < until:
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(self._metrics) as answer:
                        lines = (await answer.text()).splitlines()
                    busy = [line for line in lines if line.startswith(("workqueue_depth", "controller_runtime_active_workers"))]
                    if busy and all(float(line.rpartition(" ")[2]) == 0 for line in busy):
                        return
                await asyncio.sleep(0.1)
        raise AssertionError(f"operator {self.name} is still busy after {limit:.0f} s")

    def tail(self, characters: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""


def install(plane: ControlPlane) -> None:
    """CRDs and the operator's permissions, from the generated manifests."""
    install_crds(plane)
    manifest = yaml.safe_load_all((ROOT / "operator" / "manifests" / "operator.yaml").read_text(encoding="utf-8"))
    parts = [part for part in manifest if part and part["kind"] not in _SKIPPED]
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(parts))


def kubeconfig(path: Path, server: str, plane: ControlPlane) -> Path:
    """Of the operator's ServiceAccount, which may do no more than its manifest says."""
    token = plane.kubectl("-n", "shield-system", "create", "token", "shield-operator", "--duration=8h").strip()
    trust = {"certificate-authority": str(plane.kubeconfig.parent / "pki" / "ca.crt")} if server.startswith("https:") else {}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proof", "cluster": {"server": server, **trust}}],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [{"name": "proof", "context": {"cluster": "proof", "user": "operator"}}],
        "current-context": "proof",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
