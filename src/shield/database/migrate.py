"""Migrations: bring a database to this version's schema, one process at a time.

Everything runs under a PostgreSQL advisory lock, so replicas that start together do not race. Migrations only expand; a
contraction comes one release later, which is why an older server may run on a newer schema down to `min_app_version`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import ConfigInvalid

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0002"
"""The newest migration; a database that is there needs none of Alembic, which takes 0.3 s to import."""
_LOCK = 0x5348_4945_4C44  # "SHIELD"


def config(connection: sa.Connection) -> Config:
    """Alembic's configuration, without an ini file, on an open connection."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    settings.attributes["connection"] = connection
    return settings


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Run all missing migrations; returns at once when there are none.

    A schema that a newer release has expanded stays as it is: `check_version` decides whether this program may use it.
    """

    def run(connection: sa.Connection) -> None:
        from alembic import command

        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        command.upgrade(config(connection), revision)

    if revision == "head" and (current := await _current(engine)) is not None and current >= HEAD:
        return
    async with engine.begin() as connection:
        await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        await connection.run_sync(run)


async def _current(engine: AsyncEngine) -> str | None:
    """The migration a database stands at, None for one that has never met any."""
    async with engine.connect() as connection:
        known = await connection.execute(sa.text("SELECT to_regclass('alembic_version') IS NOT NULL"))
        if not known.scalar_one():
            return None
        return (await connection.execute(sa.text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()


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
