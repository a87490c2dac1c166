"""Images of one static program each, pushed to a registry: no builder, no base image.

    push_program("10.250.0.1:5000", "pause", "3.10", Path("pause"))

The same program gives the same image, to the byte, so pushing it again changes nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

import httpx

from kind.errors import KindError

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TIMEOUT = 60.0


class PushFailed(KindError):
    """The registry did not take an image."""

    code = "cluster.push_failed"


def push_program(registry: str, repository: str, tag: str, program: Path, *, path: str | None = None) -> str:
    """Push an image that is nothing but this program, run as nobody; returns its digest.

    Args:
        registry: host and port; spoken to without TLS.
        repository: the image's name.
        tag: its tag.
        program: a static executable.
        path: where it lies in the image, without a leading slash; by default in the root.

    Raises:
        PushFailed: the registry did not take it.
    """
    path = path or program.name
    archive = _archive(program, path)
    # Fast compression: the image crosses one link, once.
    layer = gzip.compress(archive, compresslevel=1, mtime=0)
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": [f"/{path}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(archive)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": _digest(config), "size": len(config)},
            "layers": [{"mediaType": _LAYER, "digest": _digest(layer), "size": len(layer)}],
        }
    ).encode()
    base = f"http://{registry}/v2/{repository}"
    try:
        with httpx.Client(trust_env=False, timeout=_TIMEOUT) as client:
            for blob in (layer, config):
                _push_blob(client, base, blob)
            client.put(f"{base}/manifests/{tag}", content=manifest, headers={"Content-Type": _MANIFEST}).raise_for_status()
    except httpx.HTTPError as error:
        raise PushFailed(f"{registry} did not take {repository}:{tag}: {error}") from error
    return _digest(manifest)


def _push_blob(client: httpx.Client, base: str, blob: bytes) -> None:
    if client.head(f"{base}/blobs/{_digest(blob)}").status_code == httpx.codes.OK:
        return
    place = httpx.URL(client.post(f"{base}/blobs/uploads/").raise_for_status().headers["Location"])
    place = httpx.URL(base).join(place).copy_merge_params({"digest": _digest(blob)})
    client.put(place, content=blob, headers={"Content-Type": "application/octet-stream"}).raise_for_status()


def _archive(program: Path, path: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(path)  # no times and no owner: the same program is the same image
        entry.mode, entry.size = 0o755, program.stat().st_size
        with program.open("rb") as content:
            archive.addfile(entry, content)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
