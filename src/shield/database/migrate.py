"""Migrations: bring a database to this version's schema, one process at a time.

Everything runs under a PostgreSQL advisory lock, so replicas that start together do not race. Migrations only expand; a
contraction comes one release later, which is why an older server may run on a newer schema down to `min_app_version`.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import ConfigInvalid

_LOCK = 0x5348_4945_4C44  # "SHIELD"


def config(connection: sa.Connection) -> Config:
    """Alembic's configuration, without an ini file, on an open connection."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    settings.attributes["connection"] = connection
    return settings


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Run all missing migrations; returns at once when there are none."""

    def run(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        command.upgrade(config(connection), revision)

    async with engine.begin() as connection:
        await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        await connection.run_sync(run)


async def check_version(engine: AsyncEngine, app_version: str) -> None:
    """Refuse to serve on a schema that needs a newer program.

    Raises:
        ConfigInvalid: the schema's `min_app_version` is above `app_version`.
    """
    async with engine.connect() as connection:
        needed = (await connection.execute(sa.text("SELECT min_app_version FROM schema_version"))).scalar_one()
    if _parts(app_version) < _parts(needed):
        raise ConfigInvalid(f"The database needs Shield {needed} or later; this is {app_version}.")


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])
