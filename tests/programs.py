"""Programs of the machine that tests run: installed where that is possible, else the test fails with the command that installs them."""

from __future__ import annotations

import os

import pytest

from kind.errors import PrerequisiteMissing
from kind.prerequisites import Program, ensure_programs


def need_root(why: str) -> None:
    """Fail if this is not root, and say how to become it."""
    if os.geteuid() != 0:
        pytest.fail(f"{why}: sudo -E make test-kubernetes")


def need_programs(*programs: Program) -> None:
    """Install what is missing; fail with the command where it cannot be."""
    try:
        ensure_programs(programs, print)
    except PrerequisiteMissing as missing:
        pytest.fail(f"{missing}. {missing.advice}")
