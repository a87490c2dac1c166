"""The operator as a process of its own against a real API server, as its Deployment runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kind.control_plane import ControlPlane

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "operator" / "manifests" / "crds"


def install_crds(plane: ControlPlane) -> None:
    """Our three kinds; doing it again changes nothing."""
    plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS))


@contextmanager
def running_operator(plane: ControlPlane, namespace: str, log: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """One replica that serves one namespace, ended with SIGTERM; its Lease lives there, too.

    Args:
        plane: the API server.
        namespace: what it serves.
        log: where its log goes.
        **settings: more of them, by field name.
    """
    given = {
        "kubeconfig": str(plane.kubeconfig),
        "namespaces": f'["{namespace}"]',
        "lease_namespace": namespace,
        "worker_image": "none",
        "host": "127.0.0.1",
        "health_port": "0",
        "metrics_port": "0",
        **settings,
    }
    environment = {**os.environ, **{f"SHIELD_OPERATOR_{name.upper()}": value for name, value in given.items()}}
    command = [sys.executable, "-m", "shield_operator.main", "run"]
    with log.open("wb") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
