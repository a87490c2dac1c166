"""An image as a strict cluster runs it: runc on its mounted files, as its user, without capabilities, network or a writable root."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from images.builders import Buildah, choose
from images.catalogue import Image, version
from images.process import run
from images.settings import ImageSettings
from kind.prerequisites import Program
from tests.programs import need_programs, need_root

VOLUMES = ("/tmp", "/var/lib/shield")
"""What a pod of ours can write to."""


def an_empty_dir(path: Path) -> Path:
    """A directory as the kubelet makes an emptyDir for a pod with an fsGroup: root's own, writable for the group."""
    path.mkdir()
    os.chown(path, 0, 10001)
    path.chmod(0o2777)
    return path


class Sandbox:
    """An image's files, mounted, and containers of it under the restrictions of a pod."""

    def __init__(self, root: Path, config: dict[str, Any], directory: Path) -> None:
        self.root, self.config, self._directory = root, config, directory

    def begin(
        self, *arguments: str, environment: dict[str, str] | None = None, entrypoint: list[str] | None = None, source: Path | None = None
    ) -> tuple[str, subprocess.Popen[str]]:
        """Start a container without any network but loopback; its name and process."""
        name = f"shield-image-{uuid.uuid4().hex[:12]}"
        bundle = self._directory / name
        bundle.mkdir()
        command = [*(entrypoint if entrypoint is not None else self.config.get("Entrypoint", [])), *arguments]
        volumes = {path: an_empty_dir(bundle / f"volume-{number}") for number, path in enumerate(VOLUMES)}
        (bundle / "config.json").write_text(json.dumps(self._specification(command, environment or {}, volumes, source)))
        process = subprocess.Popen(
            ["runc", "run", "--bundle", str(bundle), name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return name, process

    def run(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        entrypoint: list[str] | None = None,
        source: Path | None = None,
        within: float = 120,
    ) -> tuple[int, str]:
        """Run a container to its end; exit code and everything it said."""
        name, process = self.begin(*arguments, environment=environment, entrypoint=entrypoint, source=source)
        try:
            said, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            subprocess.run(["runc", "kill", name, "KILL"], check=False)
            said, _ = process.communicate(timeout=30)
            pytest.fail(f"{arguments} took longer than {within:.0f} s:\n{said[-3000:]}")
        finally:
            subprocess.run(["runc", "delete", "--force", name], check=False, capture_output=True)
        return process.returncode, said

    def python(self, code: str, **options: Any) -> tuple[int, str]:
        """Run a piece of Python."""
        return self.run("-c", code, entrypoint=["python"], **options)

    def _specification(
        self, command: list[str], environment: dict[str, str], volumes: dict[str, Path], source: Path | None
    ) -> dict[str, Any]:
        user, _, group = self.config["User"].partition(":")
        given = [*self.config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777", "size=65536k"]},
            *(
                {"destination": path, "type": "bind", "source": str(volume), "options": ["bind", "nosuid", "nodev"]}
                for path, volume in volumes.items()
            ),
        ]
        if source is not None:
            mounts.append({"destination": "/source", "type": "bind", "source": str(source), "options": ["bind", "ro", "nosuid", "nodev"]})
        return {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": int(user), "gid": int(group), "additionalGids": [10001]},
                "args": command,
                "env": given,
                "cwd": self.config.get("WorkingDir") or "/",
                "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.root), "readonly": True},
            "hostname": "pod",
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")], "maskedPaths": ["/proc/kcore"]},
        }


Open = Callable[[Image], Sandbox]


@contextmanager
def sandboxes(directory: Path) -> Iterator[Open]:
    """Mounts each image once, when it is asked for."""
    need_root("containers of the images' files need root")
    need_programs(Program("buildah", "buildah"), Program("runc", "runc"))
    opened: dict[str, Sandbox] = {}
    with ExitStack() as stack:

        def get(image: Image) -> Sandbox:
            if image.name not in opened:
                place = directory / image.target
                place.mkdir()
                opened[image.name] = stack.enter_context(_mounted(image, place))
            return opened[image.name]

        yield get


@contextmanager
def _mounted(image: Image, directory: Path) -> Iterator[Sandbox]:
    """The image's files on a mount of their own."""
    builder = choose(ImageSettings(builder="buildah"))
    assert isinstance(builder, Buildah)
    reference = image.local(version())
    if not builder.has(reference):
        pytest.fail(f"{reference} is not built: make images ARGS='{image.target} --no-push'")
    config = json.loads(run(["buildah", "inspect", "--type", "image", reference], within=60))["OCIv1"]["config"]
    container = run(["buildah", "from", "--pull-never", reference], within=60)
    try:
        root = Path(run(["buildah", "mount", container], within=60))
        yield Sandbox(root, config, directory)
    finally:
        run(["buildah", "rm", container], within=60)
