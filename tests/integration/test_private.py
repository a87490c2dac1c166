"""Who runs as the same user reads neither environment nor memory of a process that serves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BECOME_NOBODY = "import ctypes, os, pathlib, sys; os.getuid() or os.setresuid(65534, 65534, 65534)"  # for root reads everything
LIKE_A_FRESH_PROGRAM = "ctypes.CDLL(None).prctl(4, 1)"  # changing the user had made it private
SERVE = (
    f"from shield.cli.private import keep_private; {BECOME_NOBODY}; {LIKE_A_FRESH_PROGRAM}; %s; print('up', flush=True); sys.stdin.read()"
)
READ = f"{BECOME_NOBODY}; print(pathlib.Path(f'/proc/{{sys.argv[1]}}/environ').read_bytes())"


@contextmanager
def serving(statement: str) -> Iterator[int]:
    """A process of a user without rights, with a secret in its environment."""
    command = [sys.executable, "-c", SERVE % statement]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"DSN": "a-secret"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process.pid
        process.kill()


@pytest.mark.parametrize(("statement", "seen"), [("keep_private()", False), ("pass", True)], ids=["private", "as it is without"])
def test_a_neighbour_reads_no_environment(statement: str, seen: bool) -> None:
    with serving(statement) as pid:
        command = [sys.executable, "-c", READ, str(pid)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ("a-secret" in found.stdout) is seen
    assert ("PermissionError" in found.stderr) is not seen


def test_every_command_begins_with_it() -> None:
    command = "import ctypes, sys; sys.argv = ['shield', '--version']; from shield.cli import main\ntry: main()\nfinally: print(ctypes.CDLL(None).prctl(3))"
    found = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert (found.returncode, found.stdout.splitlines()[-1]) == (0, "0"), found.stderr
