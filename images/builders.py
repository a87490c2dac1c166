"""Builders: Docker (with or without BuildKit) and buildah, behind one port.

buildah needs no daemon and runs where Docker cannot. It is told to use the host's network for RUN, so that it leaves no bridge behind, and may be
given this machine's certificates and a cache of downloads as mounts, so that the Dockerfile knows of neither.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import ByteSize, TypeAdapter

from images.catalogue import ROOT, Image
from images.errors import PrerequisiteMissing
from images.process import run, succeeds
from images.settings import ImageSettings

_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"  # where Debian's programs, Python and uv look


class Builder(Protocol):
    """Builds images into a store of its own; every name is a full one, such as `localhost/shield-server:0.2.0`."""

    name: str

    def build(self, image: Image, tag: str, arguments: Mapping[str, str]) -> None:
        """Build an image and name it.

        Raises:
            BuildFailed: a step failed, or all took too long.
        """

    def size(self, reference: str) -> int:
        """Bytes of all its layers, unpacked."""

    def labels(self, reference: str) -> Mapping[str, str]:
        """Its labels."""

    def push(self, reference: str, destination: str, *, plain_http: bool) -> None:
        """Send it to a registry under another name."""

    def output(self, reference: str, *command: str) -> str:
        """What a command in a new container of it writes."""


class Docker:
    """The Docker command line; its daemon decides about HTTP (`insecure-registries`)."""

    name = "docker"

    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings

    @staticmethod
    def usable(settings: ImageSettings) -> bool:
        """Whether there is a daemon that answers."""
        return succeeds(["docker", "info", "--format", "{{.ServerVersion}}"], within=settings.query_timeout)

    def build(self, image: Image, tag: str, arguments: Mapping[str, str]) -> None:
        run(
            ["docker", "build", *_common(image, tag, arguments), str(ROOT)],
            within=self._settings.build_timeout,
        )

    def size(self, reference: str) -> int:
        return int(self._ask("image", "inspect", "--format", "{{.Size}}", reference))

    def labels(self, reference: str) -> Mapping[str, str]:
        return _labels(json.loads(self._ask("image", "inspect", "--format", "{{json .Config.Labels}}", reference)))

    def push(self, reference: str, destination: str, *, plain_http: bool) -> None:
        del plain_http
        self._ask("tag", reference, destination)
        run(["docker", "push", "--quiet", destination], within=self._settings.push_timeout)

    def output(self, reference: str, *command: str) -> str:
        return self._ask("run", "--rm", "--network", "none", "--entrypoint", command[0], reference, *command[1:])

    def _ask(self, *arguments: str) -> str:
        return run(["docker", *arguments], within=self._settings.query_timeout)


class Buildah:
    """buildah, as root with runc, or with chroot."""

    name = "buildah"

    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings
        runtime = shutil.which("runc")
        oci = settings.isolation == "oci" or (settings.isolation == "auto" and runtime is not None)
        if oci and runtime is None:
            raise PrerequisiteMissing("runc is not installed.", "On Debian or Ubuntu: apt-get install runc")
        self._isolation = ["--isolation", "oci", "--runtime", str(runtime)] if oci else ["--isolation", "chroot"]

    @staticmethod
    def usable(settings: ImageSettings) -> bool:
        """Whether it is installed."""
        return succeeds(["buildah", "--version"], within=settings.query_timeout)

    def build(self, image: Image, tag: str, arguments: Mapping[str, str]) -> None:
        with tempfile.TemporaryDirectory(prefix="shield-images-") as directory:
            mounts = self._mounts(Path(directory))
            self._run(
                *("bud", "--layers", "--force-rm", "--pull=false", "--network", "host", *self._isolation, *mounts),
                *_common(image, tag, arguments),
                str(ROOT),
                within=self._settings.build_timeout,
            )

    def size(self, reference: str) -> int:
        return int(TypeAdapter(ByteSize).validate_python(self._ask("images", "--format", "{{.Size}}", reference)))

    def labels(self, reference: str) -> Mapping[str, str]:
        described = json.loads(self._ask("inspect", "--type", "image", reference))
        return _labels(described["OCIv1"]["config"].get("Labels"))

    def push(self, reference: str, destination: str, *, plain_http: bool) -> None:
        self._run("push", "--quiet", f"--tls-verify={not plain_http}".lower(), reference, destination, within=self._settings.push_timeout)

    def output(self, reference: str, *command: str) -> str:
        container = self._ask("from", "--pull-never", reference)
        try:
            return self._ask("run", "--network", "none", *self._isolation, container, "--", *command)
        finally:
            self._ask("rm", container)

    def has(self, reference: str) -> bool:
        """Whether the store holds it."""
        return succeeds(
            ["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", reference], within=self._settings.query_timeout
        )

    def pulled(self, reference: str) -> bool:
        """Whether it could be pulled."""
        return succeeds(["buildah", "pull", "--quiet", reference], within=self._settings.base_timeout)

    def make(self, reference: str, archive: Path, tree: Path, config: Sequence[str]) -> None:
        """Make an image without a Dockerfile: a root file system from an archive, and a tree below /usr/local."""
        container = self._ask("from", "scratch")
        try:
            self._run("add", "--quiet", container, str(archive), "/", within=self._settings.base_timeout)
            self._run("add", "--quiet", container, str(tree), "/usr/local", within=self._settings.base_timeout)
            self._ask(
                "run", "--network", "none", *self._isolation, container, "--", "sh", "-c", "ldconfig && python3 -m ensurepip --default-pip"
            )
            self._ask("config", *config, container)
            self._run("commit", "--quiet", container, reference, within=self._settings.base_timeout)
        finally:
            self._ask("rm", container)

    def _mounts(self, directory: Path) -> list[str]:
        downloads = self._settings.cache / "uv"
        downloads.mkdir(parents=True, exist_ok=True)
        # uv runs as root in the build, whose home has one name on every Linux: there it looks for what it has downloaded before.
        mounts = {downloads: f"{Path('~root').expanduser()}/.cache/uv:rw"}
        bundle = self._settings.ca_bundle
        if bundle is not None:
            for name, content, target in (
                ("pip.conf", f"[global]\ncert = {_BUNDLE}\n", "/etc/pip.conf"),
                ("uv.toml", "system-certs = true\n", "/etc/uv/uv.toml"),
            ):
                (directory / name).write_text(content, encoding="utf-8")
                mounts[directory / name] = f"{target}:ro"
            mounts[bundle.resolve()] = f"{_BUNDLE}:ro"
        return [part for source, target in mounts.items() for part in ("--volume", f"{source}:{target}")]

    def _ask(self, *arguments: str) -> str:
        return self._run(*arguments, within=self._settings.query_timeout)

    def _run(self, *arguments: str, within: float) -> str:
        return run(["buildah", *arguments], within=within)


def choose(settings: ImageSettings) -> Docker | Buildah:
    """The builder to use.

    Raises:
        PrerequisiteMissing: there is none.
    """
    if settings.builder != "buildah" and Docker.usable(settings):
        return Docker(settings)
    if settings.builder != "docker" and Buildah.usable(settings):
        return Buildah(settings)
    wanted = "neither Docker nor buildah" if settings.builder == "auto" else f"no {settings.builder}"
    raise PrerequisiteMissing(f"There is {wanted} that answers.", "On Debian or Ubuntu: apt-get install buildah runc")


def _common(image: Image, tag: str, arguments: Mapping[str, str]) -> list[str]:
    given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    return ["--file", str(image.dockerfile), "--target", image.target, "--tag", image.local(tag), *given]


def _labels(found: Mapping[str, object] | None) -> Mapping[str, str]:
    return {str(name): str(value) for name, value in (found or {}).items()}
