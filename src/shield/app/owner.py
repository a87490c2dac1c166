"""One owner per data directory, found by everyone else.

The owner holds an exclusive `flock` on `run/owner.lock` for its whole life and, once it serves, writes `run/server.json`
(address, process id, version). The kernel drops the lock when the owner dies, kill -9 included, so the next process becomes
the owner without guessing from process ids. A file that outlived its owner leads to a closed port and is ignored.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from shield.errors import DataDirectoryBusy

_POLL = 0.05  # seconds between two looks at a lock or file


@dataclass(frozen=True)
class ServerInfo:
    """Where a running owner serves."""

    url: str
    metrics_url: str
    pid: int
    version: str


class Ownership:
    """The exclusive right to a data directory; use `acquire` and close it, or use it as a context manager."""

    def __init__(self, data_dir: Path, descriptor: int) -> None:
        self._data_dir = data_dir
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, data_dir: Path) -> Ownership | None:
        """Become the owner, or None if someone else is. The directory must exist."""
        run = data_dir / "run"
        run.mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(run / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        (run / "server.json").unlink(missing_ok=True)
        (run / "hop").unlink(missing_ok=True)
        return cls(data_dir, descriptor)

    def announce(self, info: ServerInfo) -> None:
        """Tell others where we serve; atomic, so a reader sees all of it or nothing."""
        target = self._data_dir / "run" / "server.json"
        draft = target.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(info)), encoding="utf-8")
        draft.chmod(0o600)
        draft.replace(target)

    def share(self, secret: str) -> None:
        """Leave a secret for whoever may read the directory: with it, a command acts as the directory's user (`shared_secret`)."""
        target = self._data_dir / "run" / "hop"
        target.unlink(missing_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secret)

    def close(self) -> None:
        """Give the directory up."""
        (self._data_dir / "run" / "hop").unlink(missing_ok=True)
        (self._data_dir / "run" / "server.json").unlink(missing_ok=True)
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def find_server(data_dir: Path) -> ServerInfo | None:
    """The running owner's address, or None when there is none that serves."""
    try:
        info = ServerInfo(**json.loads((data_dir / "run" / "server.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return info if _answers(info.url) else None


def shared_secret(data_dir: Path) -> str | None:
    """What the running owner has left for commands of its own user; None where it asks nobody who he is."""
    try:
        return (data_dir / "run" / "hop").read_text(encoding="utf-8")
    except OSError:
        return None


def own_or_find(data_dir: Path, *, patience: float = 15.0) -> Ownership | ServerInfo:
    """Become the owner, or find the one that serves; waits up to `patience` seconds for one that is starting or stopping.

    Raises:
        DataDirectoryBusy: someone owns the directory and does not serve.
    """
    until = time.monotonic() + patience
    while True:
        ownership = Ownership.acquire(data_dir)
        if ownership is not None:
            return ownership
        info = find_server(data_dir)
        if info is not None:
            return info
        if time.monotonic() > until:
            raise DataDirectoryBusy
        time.sleep(_POLL)


def _answers(url: str) -> bool:
    """Whether something listens there: the file of a killed owner may lie about until the next one removes it."""
    address = urlsplit(url)
    try:
        with socket.create_connection((address.hostname or "", address.port or 80), timeout=1):
            return True
    except OSError:
        return False
