"""Talking to an API server as its administrator."""

from __future__ import annotations

import json
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from kind.errors import KindError


class KubectlFailed(KindError):
    """`kubectl` ended with an error, which is the message."""

    code = "cluster.kubectl_failed"


@dataclass(frozen=True)
class Kubectl:
    """`kubectl` with a kubeconfig."""

    program: Path
    kubeconfig: Path

    def run(self, *arguments: str, input: str | None = None, timeout: float = 60) -> str:  # noqa: A002 (subprocess calls it that)
        """What it prints.

        Raises:
            KubectlFailed: it said no, or took longer than `timeout` seconds.
        """
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", *arguments]
        try:
            done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise KubectlFailed(f"kubectl {' '.join(arguments)} took longer than {timeout:.0f} s") from None
        if done.returncode != 0:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`, parsed."""
        return json.loads(self.run("get", *arguments, "-o", "json"))


def api_answers(url: str, directory: Path, path: str = "/readyz", *, timeout: float = 2) -> bool:
    """Whether the API server of the cluster in `directory` answers 200 at a path, asked as the administrator."""
    pki = directory / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    try:
        with httpx.Client(verify=context, trust_env=False, timeout=timeout) as client:
            return client.get(f"{url}{path}").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
