"""A repository on a fresh database."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.jobs.repository import JobRepository
from tests.integration.jobs.support import Rows, job_settings


@pytest.fixture
def rows(engine: AsyncEngine) -> Rows:
    return Rows(engine)


@pytest.fixture
def jobs(engine: AsyncEngine) -> JobRepository:
    return JobRepository(engine, job_settings())
