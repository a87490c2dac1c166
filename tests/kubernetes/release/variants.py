"""Versions of an image that differ from it in a few files: made in the registry, as one more layer, without a builder."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import httpx

_KINDS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
PACKAGE = "opt/shield/lib/python3.12/site-packages/shield"
"""Where our code lies in the server's image."""


def push_variant(registry: str, repository: str, tag: str, new_tag: str, files: Mapping[str, str]) -> None:
    """Push `repository:tag` once more as `new_tag`, with these Python files (paths without a leading slash) over its own.

    Raises:
        httpx.HTTPError: the registry does not hold it, or takes nothing.
    """
    base = f"http://{registry}/v2/{repository}"
    with httpx.Client(trust_env=False, timeout=60) as client:
        answer = client.get(f"{base}/manifests/{tag}", headers={"Accept": ", ".join(_KINDS)}).raise_for_status()
        manifest: dict[str, Any] = answer.json()
        config = client.get(f"{base}/blobs/{manifest['config']['digest']}").raise_for_status().json()
        archive = _archive(files)
        layer = gzip.compress(archive, mtime=0)
        config["rootfs"]["diff_ids"].append(_digest(archive))
        config["history"].append({"created_by": "a variant for a test"})
        described = json.dumps(config).encode()
        manifest["layers"].append({"mediaType": manifest["layers"][-1]["mediaType"], "digest": _digest(layer), "size": len(layer)})
        manifest["config"] |= {"digest": _digest(described), "size": len(described)}
        for blob in (layer, described):
            _push(client, base, blob)
        headers = {"Content-Type": answer.headers["Content-Type"]}
        client.put(f"{base}/manifests/{new_tag}", content=json.dumps(manifest), headers=headers).raise_for_status()


def _push(client: httpx.Client, base: str, blob: bytes) -> None:
    begun = client.post(f"{base}/blobs/uploads/").raise_for_status()
    place = httpx.URL(base).join(begun.headers["Location"]).copy_merge_params({"digest": _digest(blob)})
    client.put(place, content=blob, headers={"Content-Type": "application/octet-stream"}).raise_for_status()


def _archive(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in sorted(files.items()):
            # The image's bytecode is not compared with its source, so it must go: `.wh.` in front of a name takes a file away.
            compiled = PurePosixPath(name).with_suffix(".cpython-312.pyc")
            gone = compiled.parent / "__pycache__" / f".wh.{compiled.name}"
            for entry, content in ((tarfile.TarInfo(name), text.encode()), (tarfile.TarInfo(str(gone)), b"")):
                entry.mode, entry.size = 0o644, len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
