"""A test that lacks a program fails and says what installs it."""

from __future__ import annotations

import pytest

from kind.prerequisites import Program
from tests.programs import need_programs, need_root


def test_a_missing_program_fails_the_test_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no apt-get either, so that nothing is installed
    with pytest.raises(pytest.fail.Exception, match=r"not found on PATH: runc.*apt-get install -y --no-install-recommends runc"):
        need_programs(Program("runc", "runc"))


def test_somebody_else_than_root_is_told_how_to_become_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(pytest.fail.Exception, match="mounts need root: sudo -E make test-kubernetes"):
        need_root("mounts need root")
