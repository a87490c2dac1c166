"""What a cluster needs from the machine, each with the command that provides it.

On Debian and Ubuntu, as root, missing packages are installed (none of them starts a service); elsewhere they are named.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kind.console import Report
from kind.errors import PrerequisiteMissing

_INSTALL_TIMEOUT = 600


@dataclass(frozen=True)
class Program:
    """A program of the machine, and the Debian package that has it."""

    name: str
    package: str


PROGRAMS = (
    Program("runc", "runc"),
    Program("iptables", "iptables"),
    Program("ip", "iproute2"),
    Program("mount", "mount"),
    Program("unshare", "util-linux"),
    Program("nsenter", "util-linux"),
    Program("setpriv", "util-linux"),
)


@dataclass(frozen=True)
class Machine:
    """What the checks ask; replaced in tests."""

    find: Callable[[str], str | None] = shutil.which
    is_root: Callable[[], bool] = lambda: os.geteuid() == 0
    filesystems: Callable[[], str] = lambda: Path("/proc/filesystems").read_text(encoding="ascii")
    run: Callable[[list[str]], int] = lambda command: (
        subprocess.run(command, capture_output=True, timeout=_INSTALL_TIMEOUT, check=False).returncode
    )


def install_command(packages: list[str]) -> str:
    """What a person types."""
    return f"apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)}"


def ensure_prerequisites(report: Report, machine: Machine | None = None) -> None:
    """Check everything, and install the packages that are missing if that is possible.

    Raises:
        PrerequisiteMissing: something is missing; the advice is the command that provides it.
    """
    machine = machine or Machine()
    if not machine.is_root():
        raise PrerequisiteMissing(
            "a cluster makes namespaces, mounts and network links, which only root may",
            "Run it as root (sudo -E make cluster-up), or with Docker as anyone: make cluster-up CLUSTER=kind",
        )
    ensure_programs(PROGRAMS, report, machine)
    if "\toverlay\n" not in machine.filesystems() and machine.run(["modprobe", "overlay"]) != 0:
        raise PrerequisiteMissing("the kernel has no overlay file system", "Load it as root: modprobe overlay")
    if machine.run(["unshare", "--pid", "--fork", "--mount-proc", "--net", "--uts", "--ipc", "true"]) != 0:
        raise PrerequisiteMissing(
            "this machine does not let root make namespaces (a container without CAP_SYS_ADMIN?)",
            "Run it on the host or in a virtual machine, or in a container started with: docker run --privileged",
        )


def ensure_programs(programs: Sequence[Program], report: Report, machine: Machine | None = None) -> None:
    """Install what is missing of these, as root on Debian or Ubuntu.

    Raises:
        PrerequisiteMissing: something is missing and cannot be installed; the advice is the command that provides it.
    """
    machine = machine or Machine()
    absent = [program for program in programs if machine.find(program.name) is None]
    if absent:
        _install(absent, report, machine)


def _install(absent: list[Program], report: Report, machine: Machine) -> None:
    names = ", ".join(program.name for program in absent)
    packages = sorted({program.package for program in absent})
    advice = f"As root, on Debian or Ubuntu: {install_command(packages)}"
    if machine.find("apt-get") is None:
        raise PrerequisiteMissing(f"not found on PATH: {names}", f"{advice}. Elsewhere, the packages that have these programs")
    report(f"  installing {' '.join(packages)} ...")
    if machine.run(["sh", "-c", f"export DEBIAN_FRONTEND=noninteractive; {install_command(packages)}"]) != 0:
        raise PrerequisiteMissing(f"not found on PATH, and not to be installed: {names}", advice)
    still = [program.name for program in absent if machine.find(program.name) is None]
    if still:
        raise PrerequisiteMissing(
            f"not found on PATH, although their packages are installed: {', '.join(still)}", "Put /usr/sbin and /sbin on PATH"
        )
