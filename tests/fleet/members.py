"""One process of a fleet: started, waited for, paused, killed, started again on the same address."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class NotReady(AssertionError):
    """A member did not come up; the message ends with its log."""


class Member:
    """A process with a name, a log file and a way to tell that it is ready."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = {**os.environ, **(environment or {})}
        self._ready = ready
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs (or is paused)."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, within: float | None = 60) -> Member:
        """Start it; waits up to `within` seconds until it is ready, or not at all with None."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._cwd,
            )
        if within is not None:
            self.wait_ready(within)
        return self

    def wait_ready(self, within: float = 60) -> None:
        """Return when it is ready.

        Raises:
            NotReady: it ended, or took too long.
        """
        until = time.monotonic() + within
        while time.monotonic() < until:
            if not self.alive:
                break
            if self._ready is None or self._ready():
                return
            time.sleep(0.05)
        state = "is not ready" if self.alive else f"ended with {self._process.returncode if self._process else '-'}"
        raise NotReady(f"{self.name} {state}:\n{self.tail()}")

    def tail(self, characters: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, not to its children."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, as a crash would: its children are left to find out by themselves."""
        if self.alive:
            self.signal(signal.SIGKILL)
            assert self._process is not None
            self._process.wait(10)

    def pause(self) -> None:
        """Stop its time (SIGSTOP)."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        self.signal(signal.SIGCONT)

    def stop(self, within: float = 30) -> int:
        """SIGTERM, and wait for the end; returns the exit code."""
        if not self.alive:
            return self._process.returncode if self._process else 0
        self.go_on()
        self.signal(signal.SIGTERM)
        assert self._process is not None
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.destroy()
            raise

    def destroy(self) -> None:
        """End it and whatever it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)


def answers(url: str, *, expect: int = 200) -> Callable[[], bool]:
    """Whether a GET of `url` is answered with that status now."""

    def look() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310  our own address
                return bool(reply.status == expect)
        except urllib.error.HTTPError as error:
            return error.code == expect
        except (OSError, ValueError):
            return False

    return look


def listens(port: int) -> Callable[[], bool]:
    """Whether something accepts connections on this port of 127.0.0.1 now."""

    def look() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
        except OSError:
            return False

    return look


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
