"""A repository on a fresh database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import create_engine
from shield.jobs.repository import JobRepository
from shield.settings import PostgresSettings
from tests.integration.jobs.support import Rows, job_settings


@pytest.fixture
def rows(engine: AsyncEngine) -> Rows:
    return Rows(engine)


@pytest.fixture
def jobs(engine: AsyncEngine) -> JobRepository:
    return JobRepository(engine, job_settings())


@pytest.fixture
async def unreachable(data_dir: Path) -> AsyncIterator[JobRepository]:
    """A repository whose database is not there."""
    engine = create_engine(f"postgresql://nobody@/none?host={data_dir}", PostgresSettings())
    yield JobRepository(engine, job_settings())
    await engine.dispose()
