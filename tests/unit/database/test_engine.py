"""The engine: over TCP a connection must show signs of life, a socket needs none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shield.database.engine import create_engine, over_tcp
from shield.settings import PostgresSettings


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the driver is given."""
    given: dict[str, Any] = {}

    def noted(url: str, **options: Any) -> AsyncEngine:
        given.update(options["connect_args"])
        return create_async_engine(url, **options)

    monkeypatch.setattr("shield.database.engine.create_async_engine", noted)
    return given


@pytest.mark.parametrize(
    ("dsn", "tcp"),
    [
        ("postgresql://shield:secret@db.example.org:5432/shield?sslmode=require", True),
        ("postgres://u@127.0.0.1/x", True),
        ("postgresql+psycopg://u@[::1]/x", True),
        ("postgresql:///x?hostaddr=10.0.0.1", True),
        ("postgresql://postgres:@/postgres?host=/var/lib/shield/pg18", False),
        ("postgresql:///x", False),
        ("postgresql://u@%2Fvar%2Frun/x", False),
    ],
)
def test_a_network_address_is_told_from_a_socket(dsn: str, tcp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    assert over_tcp(dsn) == tcp


def test_over_tcp_both_ends_give_a_silent_connection_up_within_the_limit(arguments: dict[str, Any]) -> None:
    create_engine("postgresql://u@db/x", PostgresSettings(dead_after=timedelta(seconds=30)))
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count")
    idle, interval, count = (arguments[name] for name in names)
    assert idle + interval * count <= 30
    assert arguments["tcp_user_timeout"] == 30_000
    for name in names:
        assert f"-c tcp_{name}={arguments[name]}" in arguments["options"]
    assert "-c tcp_user_timeout=30000" in arguments["options"]


def test_a_socket_gets_no_such_options(arguments: dict[str, Any]) -> None:
    create_engine("postgresql:///x?host=/run", PostgresSettings())
    assert not any("keepalive" in name or "tcp" in name for name in arguments)
    assert "tcp" not in arguments["options"]
    assert "statement_timeout=30000" in arguments["options"]
