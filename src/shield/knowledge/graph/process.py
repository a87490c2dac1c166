"""A graph process as its parent sees it: started, asked with a time limit, and killed whenever in doubt.

It gets an empty directory, an environment of a handful of names, one socket, and nothing on its standard streams. The
database's address goes over the socket (see `child.py`). Start: about 2.5 s, nearly all of it LightRAG's import.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from hashlib import sha256
from typing import Any, Self

from psycopg.conninfo import conninfo_to_dict

from shield.knowledge.graph.child import Options
from shield.knowledge.graph.wire import Channel, Handler, PeerGone

_KEPT = ("LANG", "LC_ALL", "PATH", "PYTHONPATH", "TZ")
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version")


class GraphProcess:
    """A running graph process."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel, serving: asyncio.Task[None], directory: str) -> None:
        self._process, self._channel, self._serving, self._directory = process, channel, serving, directory

    @classmethod
    async def start(cls, handlers: Mapping[str, Handler], environment: dict[str, str], options: Options, limit: timedelta) -> Self:
        """Start one and let it import LightRAG.

        Raises:
            PeerGone: it died, or took longer than `limit`.
        """
        directory = tempfile.mkdtemp(prefix="shield-graph-")
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "shield.knowledge.graph.child", str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=directory,
                env=_environment(directory),
                pass_fds=(theirs.fileno(),),
            )
        except BaseException:  # passes on: nobody else could close and remove what belongs to a process that never was
            ours.close()
            shutil.rmtree(directory, ignore_errors=True)
            raise
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        channel = Channel(reader, writer, handlers)
        started = cls(process, channel, asyncio.create_task(channel.run()), directory)
        try:
            await started.call("load", limit, environment=environment, options=asdict(options))
        except BaseException:  # passes on: the caller gets no handle on this process, so it must not stay
            await started.kill()
            raise
        return started

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.returncode is None and not self._serving.done()

    async def call(self, name: str, limit: timedelta, **args: Any) -> Any:
        """Ask it; past `limit` it is killed.

        Raises:
            PeerGone: it died or was too slow.
            PeerFailed: it answered with an error.
        """
        try:
            async with asyncio.timeout(limit.total_seconds()):
                return await self._channel.call(name, **args)
        except TimeoutError as error:
            await self.kill()
            raise PeerGone from error

    async def kill(self) -> None:
        """End it at once; whatever it was doing is redone by the next one."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._reap()

    async def stop(self, patience: timedelta = timedelta(seconds=1)) -> None:
        """End it between two requests: it leaves by itself, or is killed."""
        self._serving.cancel()  # closes the socket, which it takes as its end
        try:
            async with asyncio.timeout(patience.total_seconds()):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        finally:
            await self._reap()

    async def _reap(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, self._process.wait(), return_exceptions=True)
        shutil.rmtree(self._directory, ignore_errors=True)


def _environment(directory: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}  # so that its lines are counted
    # One small process beside the model's threads: no thread pools and few arenas of its own.
    return kept | {
        "HOME": directory,
        "TMPDIR": directory,
        "ORT_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "PYTHONHASHSEED": "0",
    }


def database_environment(dsn: str, session: Mapping[str, str], connections: int) -> dict[str, str]:
    """How LightRAG is told the database, with `session` settings on each of its connections.

    TLS is told to its driver, asyncpg, which reads libpq's names and means by them what libpq means; LightRAG's own names would
    make of `require` a verification, and of `prefer` a demand.
    """
    found = conninfo_to_dict(dsn)
    environment = {
        "POSTGRES_HOST": str(found.get("host") or found.get("hostaddr") or "localhost"),
        "POSTGRES_PORT": str(found.get("port") or 5432),
        "POSTGRES_USER": str(found.get("user") or "postgres"),
        "POSTGRES_PASSWORD": str(found.get("password") or os.environ.get("PGPASSWORD") or "-"),  # LightRAG wants one
        "POSTGRES_DATABASE": str(found.get("dbname") or found.get("user") or "postgres"),
        "POSTGRES_MAX_CONNECTIONS": str(connections),
        "POSTGRES_CONNECTION_RETRIES": "3",
        "POSTGRES_CONNECTION_RETRY_BACKOFF": "0.5",
        "POSTGRES_CONNECTION_RETRY_BACKOFF_MAX": "2",
        "POSTGRES_SERVER_SETTINGS": "&".join(f"{name}={value}" for name, value in session.items()),
    }
    return environment | {f"PG{name.upper().replace('_', '')}": str(found[name]) for name in _TLS if found.get(name)}


def table_model(model: str) -> str:
    """A model's name as LightRAG puts it into table names: short, and different for different models."""
    plain = "".join(c if c.isalnum() and c.isascii() else "_" for c in model.lower())[:20]
    return f"{plain}_{sha256(model.encode()).hexdigest()[:8]}"
