#!/usr/bin/env python3
"""Shield on the local cluster, by its chart: `make install`, `make upgrade`, `make uninstall`.

    python tools/local_release.py install [HELM OPTION ...]      what `helm install` does elsewhere, with this cluster's registry and stand-ins for stores
    python tools/local_release.py upgrade --set mcp.replicas=2   keeps earlier values
    python tools/local_release.py uninstall                      CRDs stay

Each returns when it is so. What is missing is named with the command that makes it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from images.catalogue import OPERATOR, SERVER, TEST_SERVICES, version
from kind.binaries import binary
from kind.cluster import Cluster
from kind.console import to_stderr
from kind.settings import KindSettings

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "shield"
NAME = NAMESPACE = "shield"
_WAIT = ("--wait", "--timeout", "10m")


def main(arguments: list[str]) -> int:
    """Run a verb; returns the exit code."""
    if not arguments or arguments[0] not in {"install", "upgrade", "uninstall"}:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    verb, options = arguments[0], arguments[1:]
    cluster = Cluster(KindSettings(), to_stderr)
    if cluster.first_process() is None:
        return _refuse("No local cluster runs. Start one: make cluster-up")
    registry = cluster.addresses.registry
    if verb != "uninstall" and (missing := _missing(registry)):
        return _refuse(f'The cluster\'s registry lacks {", ".join(missing)}. Build them: make images ARGS="operator server services"')
    local = [
        "-f",
        str(CHART / "ci" / "local-values.yaml"),
        "--set",
        f"imageRegistry={registry}",
        "--set",
        f"global.imageRegistry={registry}",
    ]
    commands = {
        "install": ["upgrade", "--install", NAME, str(CHART), "--create-namespace", *local, *options, *_WAIT],
        "upgrade": ["upgrade", NAME, str(CHART), "--reset-then-reuse-values", *options, *_WAIT],
        "uninstall": ["uninstall", NAME, *options, *_WAIT],
    }
    helm = [str(binary("helm")), "--namespace", NAMESPACE, "--kubeconfig", str(cluster.kubeconfig)]
    return subprocess.run([*helm, *commands[verb]], check=False).returncode


def _missing(registry: str) -> list[str]:
    """Images that the cluster's registry does not hold."""
    with httpx.Client(trust_env=False, timeout=10) as client:
        wanted = [f"{image.name}:{version()}" for image in (SERVER, OPERATOR, TEST_SERVICES)]
        return [name for name in wanted if client.head(_manifest(registry, name), headers={"Accept": "*/*"}).status_code != httpx.codes.OK]


def _manifest(registry: str, name: str) -> str:
    repository, _, tag = name.partition(":")
    return f"http://{registry}/v2/{repository}/manifests/{tag}"


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
