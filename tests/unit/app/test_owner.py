"""One owner per data directory, found by everyone else."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shield.app.owner import Ownership, ServerInfo, find_server, own_or_find
from shield.errors import DataDirectoryBusy


def info(port: int) -> ServerInfo:
    return ServerInfo(f"http://127.0.0.1:{port}", "http://127.0.0.1:1/metrics", 1, "0")


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_only_one_owns_a_directory(tmp_path: Path) -> None:
    with Ownership.acquire(tmp_path) or pytest.fail("nobody owns it"):
        assert Ownership.acquire(tmp_path) is None
    second = Ownership.acquire(tmp_path)
    assert second is not None
    second.close()


def test_the_owners_address_is_found_while_it_serves(tmp_path: Path, listening: int) -> None:
    assert find_server(tmp_path) is None
    ownership = Ownership.acquire(tmp_path)
    assert ownership is not None
    ownership.announce(info(listening))
    assert own_or_find(tmp_path) == find_server(tmp_path) == info(listening)
    assert (tmp_path / "run" / "server.json").stat().st_mode & 0o077 == 0
    ownership.close()
    assert find_server(tmp_path) is None


def test_the_file_of_a_killed_owner_is_ignored(tmp_path: Path) -> None:
    script = (
        "import os, signal, pathlib; from shield.app.owner import Ownership, ServerInfo;"
        f"o = Ownership.acquire(pathlib.Path({str(tmp_path)!r}));"
        "o.announce(ServerInfo('http://127.0.0.1:9', 'x', os.getpid(), '0')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert (tmp_path / "run" / "server.json").exists()
    assert find_server(tmp_path) is None
    ownership = own_or_find(tmp_path)
    assert isinstance(ownership, Ownership)
    assert not (tmp_path / "run" / "server.json").exists()
    ownership.close()


def test_an_owner_that_never_serves_is_reported(tmp_path: Path) -> None:
    ownership = Ownership.acquire(tmp_path)
    assert ownership is not None
    with pytest.raises(DataDirectoryBusy):
        own_or_find(tmp_path, patience=0.1)
    ownership.close()


def test_a_broken_file_is_no_server(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "server.json").write_text("{")
    assert find_server(tmp_path) is None
