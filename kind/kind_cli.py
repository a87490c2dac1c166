"""The same verbs for people with Docker: a cluster by the `kind` program (https://kind.sigs.k8s.io), from `kind/cluster.yaml`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from kind.console import Report, step
from kind.errors import KindError, PrerequisiteMissing
from kind.settings import KindSettings
from kind.status import ClusterStatus, State

CONFIGURATION = Path(__file__).parent / "cluster.yaml"
_ADVICE = "Install Docker (https://docs.docker.com/engine/install/) and kind: go install sigs.k8s.io/kind@v0.32.0. Without Docker: make cluster-up"
_MARGIN = 300.0
"""Seconds that `kind` may take beyond its own waiting: it pulls an image first."""


class KindCli:
    """The cluster that the settings name, in Docker."""

    def __init__(self, settings: KindSettings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._kubeconfig = settings.state / f"{settings.cluster}.docker.kubeconfig"

    def up(self) -> None:
        """Create it, unless it is there."""
        name = self._settings.cluster
        self._settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        if name in self._clusters():
            with step(self._report, "kubeconfig"):
                self._kind("export", "kubeconfig", "--name", name, "--kubeconfig", str(self._kubeconfig))
            return
        wait = f"{self._settings.ready_timeout:.0f}s"
        with step(self._report, "kind create cluster", announce=True):
            self._kind(
                "create", "cluster", "--name", name, "--config", str(CONFIGURATION), "--kubeconfig", str(self._kubeconfig), "--wait", wait
            )

    def down(self) -> bool:
        """Delete it; says whether there was one."""
        found = self._settings.cluster in self._clusters()
        with step(self._report, "kind delete cluster"):
            self._kind("delete", "cluster", "--name", self._settings.cluster, "--kubeconfig", str(self._kubeconfig))
        self._kubeconfig.unlink(missing_ok=True)
        return found

    def status(self) -> ClusterStatus:
        """Whether it is there. It has no registry: images get into it by `kind load docker-image`."""
        if self._settings.cluster not in self._clusters():
            return ClusterStatus(self._settings.cluster, State.ABSENT)
        return ClusterStatus(self._settings.cluster, State.RUNNING, kubeconfig=str(self._kubeconfig))

    def _clusters(self) -> list[str]:
        return self._kind("get", "clusters").split()

    def _kind(self, *arguments: str) -> str:
        program = shutil.which("kind")
        if program is None or shutil.which("docker") is None:
            missing = "kind" if program is None else "docker"
            raise PrerequisiteMissing(f"not found on PATH: {missing}", _ADVICE)
        try:
            done = subprocess.run(
                [program, *arguments], capture_output=True, text=True, timeout=self._settings.ready_timeout + _MARGIN, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise KindError(f"kind {' '.join(arguments[:2])} took longer than {error.timeout:.0f} s") from None
        if done.returncode != 0:
            raise KindError(f"kind {' '.join(arguments[:2])}: {done.stderr.strip()}")
        return done.stdout
