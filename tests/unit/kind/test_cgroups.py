"""Control groups: made with all controllers, limited, and removed; in directories that look like both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from kind import cgroups
from kind.cgroups import Hierarchy
from kind.errors import NotReadyInTime

MOUNTS = """\
sysfs /sys sysfs rw 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""


@pytest.fixture
def version_1(tmp_path: Path) -> list[Hierarchy]:
    for name in ("memory", "cpuset"):
        (tmp_path / name).mkdir()
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1\n", encoding="ascii")
    (tmp_path / "cpuset" / "cpuset.mems").write_text("0\n", encoding="ascii")
    return [Hierarchy(tmp_path / name, frozenset({"rw", name}), unified=False) for name in ("memory", "cpuset")]


@pytest.fixture
def version_2(tmp_path: Path) -> list[Hierarchy]:
    (tmp_path / "cgroup.controllers").write_text("cpu memory misc pids\n", encoding="ascii")
    # The kernel fills a new directory; here it is filled before.
    (tmp_path / "shield-x").mkdir()
    (tmp_path / "shield-x" / "cgroup.controllers").write_text("cpu memory pids\n", encoding="ascii")
    (tmp_path / "shield-x" / "memory.max").write_text("max\n", encoding="ascii")
    return [Hierarchy(tmp_path, frozenset({"rw"}), unified=True)]


def test_hierarchies_are_read_from_the_mounts() -> None:
    found = cgroups.hierarchies(MOUNTS)
    assert [(str(h.root), h.unified) for h in found] == [
        ("/sys/fs/cgroup/memory", False),
        ("/sys/fs/cgroup/systemd", False),
        ("/sys/fs/cgroup/unified", True),
    ]
    assert "memory" in found[0].controllers


def test_version_1_gets_processors_and_a_limit(version_1: list[Hierarchy], tmp_path: Path) -> None:
    cgroups.prepare("shield-x", memory=1000, within=version_1)
    assert (tmp_path / "memory/shield-x/memory.limit_in_bytes").read_text(encoding="ascii") == "1000"
    assert (tmp_path / "cpuset/shield-x/cpuset.cpus").read_text(encoding="ascii") == "0-1\n"
    assert (tmp_path / "cpuset/shield-x/cpuset.mems").read_text(encoding="ascii") == "0\n"


def test_version_2_hands_the_controllers_down(version_2: list[Hierarchy], tmp_path: Path) -> None:
    cgroups.prepare("shield-x", memory=1000, within=version_2)
    assert (tmp_path / "cgroup.subtree_control").read_text(encoding="ascii") == "+cpu +memory +pids"
    assert (tmp_path / "shield-x" / "cgroup.subtree_control").read_text(encoding="ascii") == "+cpu +memory +pids"
    assert (tmp_path / "shield-x" / "memory.max").read_text(encoding="ascii") == "1000"


def test_what_pods_left_is_removed_with_it(version_1: list[Hierarchy], tmp_path: Path) -> None:
    (tmp_path / "memory/shield-x/kubepods/pod1/container").mkdir(parents=True)
    (tmp_path / "memory/other").mkdir()
    assert len(cgroups.remains("shield-x", version_1)) == 4
    cgroups.remove("shield-x", limit=1, within=version_1)
    assert cgroups.remains("shield-x", version_1) == []
    assert (tmp_path / "memory/other").is_dir()


def test_a_group_that_does_not_go_is_named(version_1: list[Hierarchy], tmp_path: Path) -> None:
    (tmp_path / "memory/shield-x").mkdir()
    (tmp_path / "memory/shield-x/tasks").write_text("1", encoding="ascii")  # here a file keeps a directory as a process would
    with pytest.raises(NotReadyInTime, match="memory/shield-x"):
        cgroups.remove("shield-x", limit=0.1, within=version_1)
