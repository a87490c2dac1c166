"""Kubeconfig files: how a client finds the API server and proves who it is."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from kind.pki import Pair


def write_kubeconfig(path: Path, *, server: str, authority: Path, user: Pair, name: str = "shield") -> Path:
    """Write one with all certificates inside it, readable by its owner only."""

    def data(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": data(authority)}}],
        "users": [{"name": name, "user": {"client-certificate-data": data(user.certificate), "client-key-data": data(user.key)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
