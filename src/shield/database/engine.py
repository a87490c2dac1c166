"""The engine: pooled connections to PostgreSQL, and what a database failure means.

SQLAlchemy Core on psycopg 3, no server-side prepared statements (a transaction pooler may stand between), a time-out on
every statement, and `pool_pre_ping`, so a restarted PostgreSQL costs one reconnect. `database_errors()` turns connection
losses into `DatabaseUnavailable`; everything else is a bug and passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shield.errors import DatabaseUnavailable
from shield.settings import PostgresSettings


def create_engine(dsn: str, settings: PostgresSettings, *, application: str = "shield") -> AsyncEngine:
    """An engine on `dsn` (any libpq form of URL); dispose it when done."""
    milliseconds = int(settings.statement_timeout.total_seconds() * 1000)
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
            "options": f"-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout=60000 -c timezone=UTC",
        },
    )


def sqlalchemy_url(dsn: str) -> str:
    """The same address with SQLAlchemy's driver name."""
    scheme, _, rest = dsn.partition("://")
    if scheme.split("+")[0] not in {"postgresql", "postgres"}:
        raise ValueError("a PostgreSQL address starts with postgresql://")
    return f"postgresql+psycopg://{rest}"


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
