"""The engine: pooled connections to PostgreSQL, and what a database failure means.

SQLAlchemy Core on psycopg 3, no server-side prepared statements (a transaction pooler may stand between), a time-out on
every statement, and `pool_pre_ping`, so a restarted PostgreSQL costs one reconnect. `database_errors()` turns connection
losses into `DatabaseUnavailable`; everything else is a bug and passes.

Over TCP a cut cable sends no goodbye. Both ends therefore give a silent connection up after `postgres.dead_after`: ours, so
that a worker's slot is free again, and the server's, so that the locks of a vanished worker are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shield.errors import DatabaseUnavailable
from shield.settings import PostgresSettings


def create_engine(dsn: str, settings: PostgresSettings, *, application: str = "shield") -> AsyncEngine:
    """An engine on `dsn` (any libpq form of URL); dispose it when done."""
    server = {
        "statement_timeout": _milliseconds(settings.statement_timeout),
        "idle_in_transaction_session_timeout": 60_000,
        "timezone": "UTC",
    }
    client: dict[str, Any] = {}
    if over_tcp(dsn):
        client, more = _signs_of_life(settings.dead_after)
        server |= more
    return create_async_engine(
        sqlalchemy_url(dsn),
        pool_size=settings.pool_size,
        max_overflow=5,
        pool_timeout=settings.connect_timeout.total_seconds(),
        pool_pre_ping=True,
        connect_args={
            "prepare_threshold": None,
            "connect_timeout": max(2, int(settings.connect_timeout.total_seconds())),
            "application_name": application,
            "options": " ".join(f"-c {name}={value}" for name, value in server.items()),
            **client,
        },
    )


def sqlalchemy_url(dsn: str) -> str:
    """The same address with SQLAlchemy's driver name."""
    scheme, _, rest = dsn.partition("://")
    if scheme.split("+")[0] not in {"postgresql", "postgres"}:
        raise ValueError("a PostgreSQL address starts with postgresql://")
    return f"postgresql+psycopg://{rest}"


def over_tcp(dsn: str) -> bool:
    """Whether the address leads through a network, and not to a socket of this machine."""
    parts = conninfo_to_dict("postgresql://" + dsn.partition("://")[2])
    host = str(parts.get("hostaddr") or parts.get("host") or os.environ.get("PGHOST") or "/")
    return not host.startswith(("/", "@"))


def _signs_of_life(dead_after: timedelta) -> tuple[dict[str, int], dict[str, int]]:
    """Options of libpq and of the server session: an idle connection is probed, an unanswered packet has a limit."""
    idle = max(1, int(dead_after.total_seconds() / 2))
    interval = max(1, int(dead_after.total_seconds() / 6))
    ours = {"keepalives": 1, "keepalives_idle": idle, "keepalives_interval": interval, "keepalives_count": 3}
    theirs = {f"tcp_{name}": value for name, value in ours.items() if name != "keepalives"}
    limit = {"tcp_user_timeout": _milliseconds(dead_after)}
    return ours | limit, theirs | limit


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


@contextmanager
def database_errors() -> Iterator[None]:
    """Raise `DatabaseUnavailable` for a lost, refused or exhausted connection."""
    try:
        yield
    except (OperationalError, PoolTimeout) as error:
        raise DatabaseUnavailable(retry_after=2) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailable(retry_after=2) from error
        raise
