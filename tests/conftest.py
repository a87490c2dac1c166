"""Shared fixtures: a real PostgreSQL a test process, and a fresh migrated database a test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.embedded import EmbeddedPostgres
from shield.database.engine import create_engine
from shield.database.migrate import upgrade
from shield.settings import PostgresSettings, Settings, load
from tests.peers.valkey import Valkey
from tests.scratch import scratch

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
_TEMPLATE = f"shield_template_{os.getpid()}"
_GIVEN = os.environ.get("SHIELD_TEST_POSTGRES_DSN")
"""A server to test on instead of the embedded one: an administrator's address that ends in `/postgres?...`."""


@dataclass(frozen=True)
class GivenPostgres:
    """A server that somebody else runs."""

    dsn: str


Server = EmbeddedPostgres | GivenPostgres


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Apply `budget.toml`: longer limits, and the mark `whole` for tests of whole processes; an entry that names no test is a mistake."""
    budget = tomllib.loads((Path(__file__).parent / "budget.toml").read_text(encoding="utf-8"))
    limits = budget["limits"]
    for item in items:
        if item.nodeid.startswith(tuple(budget["whole"]["tests"])):
            item.add_marker(pytest.mark.whole)
        for name, seconds in limits.items():
            if item.nodeid == name or item.nodeid.startswith(f"{name}::"):
                item.add_marker(pytest.mark.timeout(seconds))
    unknown = [name for name in (*limits, *budget["whole"]["tests"]) if not (Path(__file__).parents[1] / name.partition("::")[0]).exists()]
    if unknown:
        raise pytest.UsageError(f"tests/budget.toml names what does not exist: {unknown}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which vector indexes the contract tests ran on, where they ran."""
    ran = [
        report.nodeid
        for reports in terminalreporter.stats.values()
        for report in reports
        if "tests/contract/test_vectors" in getattr(report, "nodeid", "")
    ]
    if ran:
        names = [name for name in ("edge", "qdrant_peer", "qdrant_server") if any(f"[{name}" in node or f"-{name}" in node for node in ran)]
        hint = "" if "qdrant_server" in names else "; set SHIELD_TEST_QDRANT_URL for a real Qdrant server"
        terminalreporter.write_line(f"vector contract ran on: {', '.join(names)}{hint}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A private PostgreSQL for this test process, or the given one, with a migrated template database."""
    if _GIVEN:
        given = GivenPostgres(_GIVEN)
        _admin(given, f"CREATE DATABASE {_TEMPLATE}")
        asyncio.run(_migrate(_dsn(given, _TEMPLATE)))
        yield given
        _admin(given, f"DROP DATABASE {_TEMPLATE} WITH (FORCE)")
        return
    directory = Path(tempfile.mkdtemp(prefix="shield-pg-", dir=scratch()))
    try:
        with EmbeddedPostgres(directory) as server:
            for name in ("fsync", "full_page_writes"):  # what they protect from is a machine that loses power
                _admin(server, f"ALTER SYSTEM SET {name} = off")
            _admin(server, "SELECT pg_reload_conf()")
            _admin(server, f"CREATE DATABASE {_TEMPLATE}")
            asyncio.run(_migrate(_dsn(server, _TEMPLATE)))
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def dsn(postgres: Server) -> Iterator[str]:
    """Address of a fresh, migrated database, dropped afterwards."""
    name = f"t_{uuid4().hex[:12]}"
    _admin(postgres, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    yield _dsn(postgres, name)
    with contextlib.suppress(psycopg.Error):
        _admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def engine(dsn: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a fresh, migrated database."""
    engine = create_engine(dsn, PostgresSettings())
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """A Valkey server for this test process."""
    server = Valkey().start()
    yield server
    server.close()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """The same server, running and empty; a test may kill it."""
    valkey_server.start().wipe()
    return valkey_server


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short-pathed data directory that embedded PostgreSQL accepts, removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="shield-data-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def fast_dir() -> Iterator[Path]:
    """The same in memory, for what writes often and is not searched: memory cannot tell what a file reserves from what it holds."""
    directory = Path(tempfile.mkdtemp(prefix="shield-data-", dir=scratch()))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    """Settings for tests: short durations, free ports, the decided test values for leases."""
    return load(
        data_dir=data_dir,
        port=0,
        metrics_port=0,
        jobs={"lease": 2, "heartbeat": 0.6, "relay": 0.2, "backoff_min": 0.05, "backoff_max": 0.2, "poll_after": 0.1, "drain": 0.5},
        crawl={"per_host_delay": 0},
        graph={"idle": 2},
        file={"convert_idle": 2},
    )


def _dsn(server: Server, database: str) -> str:
    return server.dsn.replace("/postgres?", f"/{database}?")


def _admin(server: Server, statement: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


async def _migrate(dsn: str) -> None:
    engine = create_engine(dsn, PostgresSettings())
    await upgrade(engine)
    await engine.dispose()
