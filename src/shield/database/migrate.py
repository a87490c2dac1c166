"""Migrations: bring a database to this version's schema, one process at a time.

Everything runs in one transaction under a PostgreSQL advisory lock, so processes that start together do not race, and a backup that
is being made keeps migrations off. A migration waits only a few seconds for a table's lock, because everybody else queues up behind
it, and then tries again. Migrations only expand; a contraction comes one release later, which is why an older server may run on a
newer schema down to `min_app_version`.

The owner of a data directory migrates its own database. In server mode `shield db upgrade` does, and the fleet's processes wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.database.suitable import require_suitable
from shield.errors import ConfigInvalid, DatabaseBusy, DatabaseUnavailable, SchemaBehind, ShieldError
from shield.settings import PostgresSettings

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0003"
"""The newest migration; a database that is there needs none of Alembic, which takes 0.3 s to import."""
LOCK = 0x5348_4945_4C44  # "SHIELD"
"""The advisory lock of everything that changes the schema; a backup holds it in share mode."""
_LOCKED = {"55P03", "40P01"}  # lock_timeout, deadlock
_POLL = 0.2  # seconds between two tries

T = TypeVar("T")


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade did."""

    before: str | None
    """The migration the database stood at; None = it was empty."""
    after: str


def config(connection: sa.Connection) -> Config:
    """Alembic's configuration, without an ini file, on an open connection."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    settings.attributes["connection"] = connection
    return settings


def revisions() -> list[str]:
    """All migrations this program knows, the oldest first."""
    names = (Path(__file__).parent / "migrations" / "versions").glob("[0-9]*.py")
    return sorted(path.name.partition("_")[0] for path in names)


async def upgrade(engine: AsyncEngine, revision: str = "head", *, settings: PostgresSettings | None = None) -> Upgraded:
    """Run all missing migrations; returns at once when there are none.

    A schema that a newer release has expanded stays as it is: `check_version` decides whether this program may use it.

    Raises:
        DatabaseUnsuitable: this PostgreSQL is too old, or lacks pgvector.
        DatabaseBusy: others held the lock, or a table, for longer than `schema_wait`.
    """
    limits = settings or PostgresSettings()
    before = await current(engine)
    if revision == "head" and before is not None and before >= HEAD:
        return Upgraded(before, before)

    async def attempt() -> Upgraded:
        async with engine.begin() as connection:
            await exclusive(connection, limits)
            await require_suitable(connection)
            return Upgraded(await current_of(connection), await migrate(connection, revision))

    return await retried(attempt, limits.schema_wait)


async def exclusive(connection: AsyncConnection, limits: PostgresSettings) -> None:
    """Become the only one who changes the schema, until the transaction ends; statements may take their time, locks may not."""
    milliseconds = int(limits.lock_timeout.total_seconds() * 1000)
    await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
    await connection.execute(sa.text(f"SET LOCAL lock_timeout = {milliseconds}"))
    await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


async def migrate(connection: AsyncConnection, revision: str = "head") -> str:
    """Run migrations inside the caller's transaction; returns where the schema stands then."""

    def run(inner: sa.Connection) -> None:
        from alembic import command

        command.upgrade(config(inner), revision)

    await connection.run_sync(run)
    return await current_of(connection) or ""


async def check_version(engine: AsyncEngine, app_version: str) -> None:
    """Refuse to serve on a schema that needs a newer program.

    Raises:
        ConfigInvalid: the schema's `min_app_version` is above `app_version`.
    """
    async with engine.connect() as connection:
        needed = await min_app_version(connection)
    if parts_of(app_version) < parts_of(needed):
        raise ConfigInvalid(f"The database needs Shield {needed} or later; this is {app_version}.")


async def min_app_version(connection: AsyncConnection) -> str:
    """The oldest program that may serve on this schema."""
    return str((await connection.execute(sa.text("SELECT min_app_version FROM schema_version"))).scalar_one())


async def wait_for_schema(
    engine: AsyncEngine, app_version: str, limit: timedelta, *, report: Callable[[str], None] = lambda _: None
) -> None:
    """Return when the database has this program's schema; for processes that must not migrate.

    Args:
        engine: the database.
        app_version: this program's.
        limit: how long to wait; a database that does not answer is waited for as well.
        report: told once, in a sentence, what is waited for.

    Raises:
        SchemaBehind: nobody upgraded the database in time.
        DatabaseUnavailable: it did not answer until the end.
        ConfigInvalid: the schema needs a newer program.
    """
    until = asyncio.get_running_loop().time() + limit.total_seconds()
    told = False
    while True:
        problem: ShieldError
        try:
            with database_errors():
                stands = await current(engine)
            if stands is not None and stands >= HEAD:
                return await check_version(engine, app_version)
            problem = SchemaBehind(f"The database's schema is {stands or 'empty'}; this version needs {HEAD}.")
        except DatabaseUnavailable as error:
            problem = error
        if asyncio.get_running_loop().time() >= until:
            raise problem
        if not told:
            told = True
            report(f"{problem.message} Waiting up to {limit.total_seconds():g} s.")
        await asyncio.sleep(_POLL)


async def wait_for_database(engine: AsyncEngine, limit: timedelta) -> None:
    """Return when the database answers, whatever its schema.

    Raises:
        DatabaseUnavailable: it did not for so long.
    """
    until = asyncio.get_running_loop().time() + limit.total_seconds()
    while True:
        try:
            with database_errors():
                await current(engine)
            return
        except DatabaseUnavailable:
            if asyncio.get_running_loop().time() >= until:
                raise
        await asyncio.sleep(_POLL)


async def current(engine: AsyncEngine) -> str | None:
    """The migration a database stands at, None for one that has never met any."""
    async with engine.connect() as connection:
        return await current_of(connection)


async def current_of(connection: AsyncConnection) -> str | None:
    """The same, inside the caller's transaction."""
    known = await connection.execute(sa.text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    if not known.scalar_one():
        return None
    return (await connection.execute(sa.text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()


async def retried(attempt: Callable[[], Awaitable[T]], limit: timedelta) -> T:
    """What `attempt` returns; tried again from the start while locks are not to be had.

    Raises:
        DatabaseBusy: they were not for longer than `limit`.
    """
    until = asyncio.get_running_loop().time() + limit.total_seconds()
    while True:
        try:
            return await attempt()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _LOCKED:
                raise
            if asyncio.get_running_loop().time() >= until:
                raise DatabaseBusy from error
        await asyncio.sleep(_POLL)


def parts_of(version: str) -> tuple[int, ...]:
    """A version's numbers, to compare."""
    return tuple(int(part) for part in version.split(".")[:3])
