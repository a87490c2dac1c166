"""A second, empty database beside the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.embedded import EmbeddedPostgres
from shield.database.engine import create_engine
from tests.integration.database.support import AT_0001, LIMITS, admin, execute, since_0002


@pytest.fixture
def empty_dsn(postgres: EmbeddedPostgres) -> Iterator[str]:
    """Address of a database that nobody has migrated."""
    name = f"e_{uuid4().hex[:12]}"
    admin(postgres.dsn, f"CREATE DATABASE {name}")
    yield postgres.dsn.replace("/postgres?", f"/{name}?")
    admin(postgres.dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def empty(empty_dsn: str) -> AsyncIterator[AsyncEngine]:
    """An engine on it."""
    engine = create_engine(empty_dsn, LIMITS)
    yield engine
    await engine.dispose()


@pytest.fixture
async def full(engine: AsyncEngine) -> AsyncEngine:
    """The test's own database with something in every table."""
    await execute(engine, *AT_0001, *since_0002())
    return engine
