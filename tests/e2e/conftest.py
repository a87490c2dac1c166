"""A real `shield up` in a process of its own, to be driven, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shield.app.owner import ServerInfo, find_server
from tests.processes import kill_tree

QUICK = {
    "SHIELD_PORT": "0",
    "SHIELD_METRICS_PORT": "0",
    "SHIELD_JOBS_LEASE": "2",
    "SHIELD_JOBS_HEARTBEAT": "0.6",
    "SHIELD_JOBS_RELAY": "0.2",
    "SHIELD_CRAWL_PER_HOST_DELAY": "0",
    "SHIELD_LOG_FORMAT": "json",
    "ORT_DISABLE_TELEMETRY": "1",
}


class Up:
    """A server process on a data directory; `start` it, use `info`, `stop` or `kill` it."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.environment = {**os.environ, **QUICK, "SHIELD_DATA_DIR": str(data_dir), **environment}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data_dir.with_suffix(".log")

    def start(self, *arguments: str, within: float = 50) -> ServerInfo:
        """Start and wait until it serves."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shield", "up", *(arguments or ("--no-samples",))],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + within
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            info = find_server(self.data_dir)
            if info is not None and info.pid == self.process.pid:
                return info
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()[-4000:]}")

    @property
    def info(self) -> ServerInfo:
        """Where it serves now."""
        info = find_server(self.data_dir)
        assert info is not None
        return info

    def kill(self) -> None:
        """kill -9, as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self, within: float = 10) -> float:
        """Ctrl-C; returns how long it took, in seconds."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(within)
        return time.monotonic() - began

    def close(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        kill_tree(str(self.data_dir))
        self.log.unlink(missing_ok=True)


MakeUp = Callable[..., Up]


@pytest.fixture
def up() -> Iterator[MakeUp]:
    """A factory of servers, each on a data directory of its own unless told otherwise."""
    made: list[Up] = []
    with tempfile.TemporaryDirectory(prefix="shield-e2e-", ignore_cleanup_errors=True) as parent:
        Path(parent).chmod(0o711)

        def make(data_dir: Path | None = None, **environment: str) -> Up:
            made.append(Up(data_dir or Path(parent) / f"d{len(made)}", **environment))
            return made[-1]

        yield make
        for server in made:
            server.close()
