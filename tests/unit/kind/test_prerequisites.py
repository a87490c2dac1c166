"""What is missing is named with the command that provides it."""

from __future__ import annotations

import pytest

from kind.console import silent
from kind.errors import PrerequisiteMissing
from kind.prerequisites import PROGRAMS, Machine, ensure_prerequisites


class FakeMachine:
    """A machine with these programs; `apt-get` brings what its packages have."""

    def __init__(
        self, *, lacks: tuple[str, ...] = (), root: bool = True, overlay: bool = True, apt: str = "works", namespaces: bool = True
    ) -> None:
        self.programs = {program.name for program in PROGRAMS} - set(lacks) | ({"apt-get"} if apt != "absent" else set())
        self.commands: list[str] = []
        self._apt, self._namespaces = apt, namespaces
        filesystems = "nodev\tproc\n" + ("nodev\toverlay\n" if overlay else "")
        self.machine = Machine(self._find, lambda: root, lambda: filesystems, self._run)

    def _find(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name in self.programs else None

    def _run(self, command: list[str]) -> int:
        self.commands.append(" ".join(command))
        if "apt-get" in self.commands[-1]:
            if self._apt == "works":
                self.programs |= {program.name for program in PROGRAMS}
            return 0 if self._apt != "fails" else 100
        if command[0] == "unshare":
            return 0 if self._namespaces else 1
        return 1


def test_a_complete_machine_is_left_alone() -> None:
    fake = FakeMachine()
    ensure_prerequisites(silent, fake.machine)
    assert not any("apt-get" in command for command in fake.commands)


def test_missing_packages_are_installed_and_named() -> None:
    fake, lines = FakeMachine(lacks=("runc", "iptables")), list[str]()
    ensure_prerequisites(lines.append, fake.machine)
    assert lines == ["  installing iptables runc ..."]
    assert "apt-get install -y --no-install-recommends iptables runc" in fake.commands[0]


@pytest.mark.parametrize("apt", ["absent", "fails"])
def test_where_they_cannot_be_installed_the_command_is_shown(apt: str) -> None:
    with pytest.raises(PrerequisiteMissing, match="runc") as failed:
        ensure_prerequisites(silent, FakeMachine(lacks=("runc",), apt=apt).machine)
    assert "apt-get update && apt-get install -y --no-install-recommends runc" in failed.value.advice


def test_a_package_that_brings_nothing_to_path_is_noticed() -> None:
    with pytest.raises(PrerequisiteMissing, match="runc") as failed:
        ensure_prerequisites(silent, FakeMachine(lacks=("runc",), apt="useless").machine)
    assert "/usr/sbin" in failed.value.advice


def test_who_is_not_root_learns_both_ways() -> None:
    fake = FakeMachine(root=False, lacks=("runc",))
    with pytest.raises(PrerequisiteMissing, match="root") as failed:
        ensure_prerequisites(silent, fake.machine)
    assert "sudo" in failed.value.advice
    assert "CLUSTER=kind" in failed.value.advice
    assert fake.commands == []


def test_a_kernel_without_overlay_is_refused() -> None:
    with pytest.raises(PrerequisiteMissing, match="overlay") as failed:
        ensure_prerequisites(silent, FakeMachine(overlay=False).machine)
    assert "modprobe overlay" in failed.value.advice


def test_a_container_without_rights_is_refused() -> None:
    with pytest.raises(PrerequisiteMissing, match="namespaces"):
        ensure_prerequisites(silent, FakeMachine(namespaces=False).machine)
