"""A worker on a fresh database that can be taken away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.embedded import EmbeddedPostgres
from shield.jobs.repository import JobRepository
from tests.integration.jobs.support import Rows, job_settings

Outage = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture
def rows(engine: AsyncEngine) -> Rows:
    return Rows(engine)


@pytest.fixture
def jobs(engine: AsyncEngine) -> JobRepository:
    return JobRepository(engine, job_settings())


@pytest.fixture
def outage(postgres: EmbeddedPostgres, engine: AsyncEngine) -> Outage:
    """Inside `async with outage():` the database refuses every connection, and has cut the open ones."""
    name = engine.url.database

    def admin(*statements: str) -> None:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        await asyncio.to_thread(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false", cut)
        try:
            yield
        finally:
            await asyncio.to_thread(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    return away
