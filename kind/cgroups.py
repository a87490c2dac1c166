"""The control groups that hold a cluster's pods: one directory in each hierarchy, and no process of ours outside pods in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kind.errors import NotReadyInTime
from kind.waiting import until

_UNIFIED = "cgroup2"


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy of control groups."""

    root: Path
    controllers: frozenset[str]
    unified: bool


def hierarchies(mounts: str | None = None) -> list[Hierarchy]:
    """All hierarchies of this machine: one on a machine with version 2, a dozen with version 1 or with both."""
    text = Path("/proc/mounts").read_text(encoding="utf-8") if mounts is None else mounts
    found = []
    for line in text.splitlines():
        _, where, kind, options = line.split()[:4]
        if kind in ("cgroup", _UNIFIED):
            found.append(Hierarchy(Path(where), frozenset(options.split(",")), kind == _UNIFIED))
    return found


def prepare(name: str, *, memory: int, within: list[Hierarchy] | None = None) -> None:
    """Make the directories, with all controllers, and limit the memory of all pods together."""
    for hierarchy in hierarchies() if within is None else within:
        directory = hierarchy.root / name
        if hierarchy.unified:
            _delegate(hierarchy.root)
        directory.mkdir(exist_ok=True)
        if hierarchy.unified:
            _delegate(directory)
            if (limit := directory / "memory.max").exists():
                limit.write_text(str(memory), encoding="ascii")
        if "cpuset" in hierarchy.controllers:
            for file in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group, and then nothing may run in it
                (directory / file).write_text((hierarchy.root / file).read_text(encoding="ascii"), encoding="ascii")
        if "memory" in hierarchy.controllers:
            (directory / "memory.limit_in_bytes").write_text(str(memory), encoding="ascii")


def remains(name: str, within: list[Hierarchy] | None = None) -> list[Path]:
    """The directories that exist, innermost first."""
    return [path for hierarchy in (hierarchies() if within is None else within) for path in _tree(hierarchy.root / name)]


def remove(name: str, *, limit: float, within: list[Hierarchy] | None = None) -> None:
    """Remove them; what is dying keeps its group for a moment.

    Raises:
        NotReadyInTime: after `limit` seconds some are left.
    """

    def gone() -> bool:
        for path in remains(name, within):
            with contextlib.suppress(OSError):
                path.rmdir()
        return not remains(name, within)

    try:
        until("an end of the control groups", gone, limit=limit)
    except NotReadyInTime as error:
        left = ", ".join(str(path) for path in remains(name, within))
        raise NotReadyInTime(f"{error}: {left}") from None


def _tree(directory: Path) -> Iterator[Path]:
    if not directory.is_dir():
        return
    with contextlib.suppress(FileNotFoundError):  # groups vanish while they are looked at
        for child in directory.iterdir():
            if child.is_dir():
                yield from _tree(child)
    yield directory


def _delegate(directory: Path) -> None:
    wanted = {"cpu", "cpuset", "io", "memory", "pids", "hugetlb"} & set(
        (directory / "cgroup.controllers").read_text(encoding="ascii").split()
    )
    if wanted:
        (directory / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)), encoding="ascii")
