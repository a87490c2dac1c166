"""The database as somebody operates it: status, upgrade, backup and restore, in both modes.

In server mode the database is the one that the settings name. Embedded, it is the data directory's own: saving and looking work beside
a running server, and start the database for their own life if there is none; restoring needs the data directory for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from shield import __version__
from shield.app.owner import Ownership
from shield.database.backup import Backup, Place, Restored, Saved, place_of, restore
from shield.database.embedded import EmbeddedPostgres, prepare
from shield.database.engine import create_engine, database_errors
from shield.database.migrate import HEAD, Upgraded, current, current_of, min_app_version, parts_of, revisions, upgrade, wait_for_database
from shield.database.suitable import look
from shield.errors import DataDirectoryBusy, SchemaBehind
from shield.settings import Settings


@dataclass(frozen=True)
class Status:
    """What `shield db status` tells."""

    postgres: str
    pgvector: str | None
    problem: str | None
    """Why this database will not do, or None."""
    schema_version: str | None
    """None = empty."""
    newest: str
    """The newest schema that this version knows."""
    pending: tuple[str, ...]
    min_app_version: str | None
    app_version: str
    bytes: int

    @property
    def ready(self) -> bool:
        """Whether this version can serve on it now."""
        fits = self.min_app_version is None or parts_of(self.app_version) >= parts_of(self.min_app_version)
        return self.problem is None and not self.pending and fits


async def status(settings: Settings) -> Status:
    """Look at the database; changes nothing.

    Raises:
        SchemaBehind: embedded, and there is none yet.
        DatabaseUnavailable: it does not answer.
    """
    async with _database(settings) as dsn:
        engine = create_engine(dsn, settings.postgres)
        try:
            with database_errors():
                async with engine.connect() as connection:
                    server = await look(connection)
                    stands = await current_of(connection)
                    needed = await min_app_version(connection) if stands else None
                    size = await connection.exec_driver_sql("SELECT pg_database_size(current_database())")
                    return Status(
                        postgres=server.version,
                        pgvector=server.vector,
                        problem=server.problem(),
                        schema_version=stands,
                        newest=HEAD,
                        pending=tuple(name for name in revisions() if stands is None or name > stands),
                        min_app_version=needed,
                        app_version=__version__,
                        bytes=int(size.scalar_one()),
                    )
        finally:
            await engine.dispose()


@dataclass(frozen=True)
class Prepared:
    """What `shield db upgrade` did."""

    upgraded: Upgraded
    backup: str | None
    """Where the database was saved before; None if there was no need, or nobody asked."""


async def upgrade_database(
    settings: Settings, *, wait: bool = False, backups: str | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Prepared:
    """Run the missing migrations.

    Args:
        settings: name the database.
        wait: a database that does not answer is waited for, as long as for the schema.
        backups: directory, or `s3://bucket/prefix`, where a database that will be changed and is not empty is saved first. Without the
            backup there is no migration.
        now: the time in the backup's name.
    """
    async with _database(settings, make=True) as dsn:
        engine = create_engine(dsn, settings.postgres)
        try:
            with database_errors():
                if wait:
                    await wait_for_database(engine, settings.postgres.schema_wait)
                stands = await current(engine)
                target = None
                if backups is not None and stands is not None and stands < HEAD:
                    target = f"{backups.rstrip('/')}/shield-{stands}-{now():%Y%m%dT%H%M%SZ}.backup"
                    await _save(settings, dsn, target)
                return Prepared(await upgrade(engine, settings=settings.postgres), target)
        finally:
            await engine.dispose()


async def save(settings: Settings, target: str) -> Saved:
    """Back the database up to a path or `s3://bucket/key`."""
    place_of(target, settings.backup)  # a place that is none is known before the database is started
    async with _database(settings) as dsn:
        return await _save(settings, dsn, target)


async def _save(settings: Settings, dsn: str, target: str) -> Saved:
    place = place_of(target, settings.backup)
    uploads = settings.data_dir / "uploads" if settings.mode == "embedded" else None
    backup = Backup(dsn, app_version=__version__, limits=settings.postgres, stall=settings.backup.timeout, uploads=uploads)
    async with aclosing(backup.chunks()) as chunks:  # also when the place fails, the connection and its locks go at once
        await place.write(chunks)
    return backup.saved


async def bring_back(settings: Settings, source: str, *, force: bool) -> Restored:
    """Restore the database from a path or `s3://bucket/key`.

    Raises:
        DataDirectoryBusy: embedded, and a server runs on it.
    """
    place: Place = place_of(source, settings.backup)
    async with _owned(settings), _database(settings, make=True) as dsn:
        engine = create_engine(dsn, settings.postgres, application="shield-restore")
        try:
            return await restore(engine, place.read(), force=force, limits=settings.postgres)
        finally:
            await engine.dispose()


@asynccontextmanager
async def _database(settings: Settings, *, make: bool = False) -> AsyncIterator[str]:
    """The database's address; embedded, it runs for as long as the block lasts."""
    if settings.mode == "server" and settings.postgres.dsn is not None:
        yield settings.postgres.dsn.get_secret_value()
        return
    postgres = EmbeddedPostgres(settings.data_dir)
    if not make and not (postgres.directory / "PG_VERSION").exists():
        raise SchemaBehind(f"There is no database in {settings.data_dir}.")
    await asyncio.to_thread(postgres.start)
    try:
        yield postgres.dsn
    finally:
        await asyncio.to_thread(postgres.stop)


@asynccontextmanager
async def _owned(settings: Settings) -> AsyncIterator[None]:
    if settings.mode == "server":
        yield
        return
    await asyncio.to_thread(prepare, settings.data_dir)
    ownership = Ownership.acquire(settings.data_dir)
    if ownership is None:
        raise DataDirectoryBusy("A Shield server uses this data directory; stop it, then restore.")
    with ownership:
        yield
