"""The programs of the cluster, built from source once and kept.

`binary("kubectl")` is the path of a built program; what is missing is built first. A tool's programs lie in
`<cache>/bin/<tool>-<key>/`, where the key is the hash of its `go.mod`, `go.sum` and recipe, so a second start builds nothing
and a changed version builds that tool only. A directory appears under its name by one rename, when all of it is there: a build
that is killed leaves nothing that looks finished. Two starts at once build once: a file lock, released by the kernel when its
holder dies.

Sources and intermediate results (some 10 GB) lie in `<cache>/build/` and are deleted when the build has succeeded; after one that
failed or was killed they stay, and the next start goes on from there.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kind.catalogue import Tool, tool_of
from kind.console import Report, step, to_stderr
from kind.errors import BuildFailed, DiskFull, NotReadyInTime, PrerequisiteMissing
from kind.settings import KindSettings

_MINIMUM_GO = (1, 26)
_GO_ADVICE = (
    'Install Go 1.26 or newer from https://go.dev/dl/, on x86-64 as root: "curl -fsSL https://go.dev/dl/go1.26.8.linux-amd64.tar.gz'
    ' | tar -C /usr/local -xz", and put /usr/local/go/bin on PATH'
)


def binary(name: str, settings: KindSettings | None = None, report: Report = to_stderr) -> Path:
    """The path of a program, which is built first if it is missing: minutes, once.

    Raises:
        PrerequisiteMissing: it has to be built, and there is no Go.
        BuildFailed: the compiler said no.
    """
    return directory(tool_of(name), settings, report) / name


def directory(tool: Tool, settings: KindSettings | None = None, report: Report = to_stderr) -> Path:
    """Where a tool's programs and files are, which are made first if they are missing.

    Raises:
        PrerequisiteMissing: they have to be made, and there is no Go.
        BuildFailed: the compiler said no.
    """
    store = Store(settings or KindSettings(), report)
    store.ensure([tool])
    return store.directory(tool)


class Store:
    """The built tools of one cache directory."""

    def __init__(self, settings: KindSettings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._build = settings.cache / "build"

    def directory(self, tool: Tool) -> Path:
        """Where a tool's programs are, once it is built."""
        return self._settings.cache / "bin" / f"{tool.name}-{tool.key}"

    def missing(self, tools: Sequence[Tool]) -> list[Tool]:
        """Those that are not built."""
        return [tool for tool in tools if not self.directory(tool).is_dir()]

    def ensure(self, tools: Sequence[Tool]) -> None:
        """Build what is missing, and delete the sources.

        Raises:
            PrerequisiteMissing: there is no Go, or an old one.
            DiskFull: less disk is free than a build needs.
            BuildFailed: the compiler said no; its last lines are in the message.
            NotReadyInTime: another start has been building for too long.
        """
        if not self.missing(tools):
            return
        self._settings.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock():
            missing = self.missing(tools)
            if not missing:
                return
            self._check_disk()
            for tool in missing:
                with step(self._report, f"build {tool.name} {tool.version}".rstrip(), announce=True):
                    self._make(tool)
            shutil.rmtree(self._build)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self._settings.cache / "build.lock").open("w") as file:
            deadline = time.monotonic() + self._settings.build_lock_timeout
            waiting = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waiting:
                        self._report("  another start is building: waiting for it")
                        waiting = True
                    if time.monotonic() > deadline:
                        limit = self._settings.build_lock_timeout
                        raise NotReadyInTime(f"another start holds {file.name} and has not finished in {limit:.0f} s") from None
                    time.sleep(0.5)
            yield

    def _check_disk(self) -> None:
        needed = self._settings.build_free_disk
        if self._build.exists():  # the larger part of a build that was cut short is there already
            needed = type(needed)(needed // 2)
        free = shutil.disk_usage(self._settings.cache).free
        if free < needed:
            raise DiskFull(
                f"building the tools needs {needed / 1024**3:.0f} GiB of free disk under {self._settings.cache}, there are {free / 1024**3:.1f}",
                "Free some, or set SHIELD_KIND_CACHE to a directory on a larger disk; about 1 GiB stays in use afterwards",
            )

    def _make(self, tool: Tool) -> None:
        modules, objects, temporary = (self._build / part for part in ("modules", "objects", "temporary"))
        for path in (modules, objects, temporary):
            path.mkdir(parents=True, exist_ok=True)
        environment = build_environment(os.environ, modules=modules, objects=objects, temporary=temporary)
        self._check_go(tool, environment)
        target = self.directory(tool)
        made = target.with_name(f".{target.name}")
        shutil.rmtree(made, ignore_errors=True)  # of a build that was killed
        made.mkdir(parents=True)
        if tool.programs:
            self._go(build_command(tool, made), tool, environment)
        if tool.data:
            self._go(["go", "mod", "download", tool.module], tool, environment)  # of which a build without programs has nothing
            upstream = Path(self._go(["go", "list", "-m", "-f", "{{.Dir}}", tool.module], tool, environment).strip())
            for path in (path for pattern in tool.data for path in sorted(upstream.glob(pattern))):
                shutil.copy(path, made)
        absent = [name for name in tool.programs if not (made / name).is_file()]
        if absent:
            raise BuildFailed(f"the build of {tool.name} made no {', '.join(absent)}")
        made.rename(target)

    def _check_go(self, tool: Tool, environment: Mapping[str, str]) -> None:
        if shutil.which("go") is None:
            raise PrerequisiteMissing("Go is missing, and the cluster's programs are not built yet", _GO_ADVICE)
        said = self._go(["go", "env", "GOVERSION"], tool, environment).strip()
        found = re.match(r"go(\d+)\.(\d+)", said)
        if found is None or (int(found[1]), int(found[2])) < _MINIMUM_GO:
            raise PrerequisiteMissing(f"Go is too old: {said or 'no version'}", _GO_ADVICE)

    def _go(self, command: Sequence[str], tool: Tool, environment: Mapping[str, str]) -> str:
        try:
            done = subprocess.run(
                ["nice", "-n", "19", *command],
                cwd=tool.directory,
                env=dict(environment),
                capture_output=True,
                text=True,
                timeout=self._settings.build_timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BuildFailed(
                f"{tool.name} was not built within {self._settings.build_timeout:.0f} s; the next start goes on from there"
            ) from None
        if done.returncode != 0:
            said = "\n".join(done.stderr.strip().splitlines()[-15:])
            raise BuildFailed(f"{tool.name}: {' '.join(command[:2])} ended with {done.returncode}:\n{said}")
        return done.stdout


def build_command(tool: Tool, directory: Path) -> list[str]:
    """The command that builds all programs of a tool into a directory."""
    packages = list(tool.programs.values())
    # With one package its name is ours to choose; with several, Go names each after the last part of its path.
    output = str(directory / next(iter(tool.programs))) if len(packages) == 1 else f"{directory}/"
    tags = ["-tags", tool.tags] if tool.tags else []
    return ["go", "build", "-trimpath", *tags, "-ldflags", tool.linker_flags, "-o", output, *packages]


def build_environment(inherited: Mapping[str, str], *, modules: Path, objects: Path, temporary: Path) -> dict[str, str]:
    """The environment of a build: this machine's, but static programs, and caches that can be deleted."""
    flags = f"{inherited.get('GOFLAGS', '')} -modcacherw".strip()
    return {
        **inherited,
        "CGO_ENABLED": "0",
        "GOFLAGS": flags,
        "GOMODCACHE": str(modules),
        "GOCACHE": str(objects),
        "GOTMPDIR": str(temporary),
        "GOWORK": "off",
    }
