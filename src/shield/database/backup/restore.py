"""Restoring: all of a backup in one transaction, or nothing.

The schema is first made as it was when the backup was taken, the rows are loaded into it, and then it is upgraded like any other
database, so an older backup restores into a newer version. Every part is checked before it is loaded and the whole before the commit;
whatever goes wrong on the way, the database stays as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.backup.archive import Header, Unpacker
from shield.database.backup.catalogue import Connection, catalogue, finish_table, make_table, one
from shield.database.backup.renewal import Floors, floors, renew
from shield.database.backup.structure import FOREIGN, OURS
from shield.database.engine import database_errors
from shield.database.migrate import HEAD, LOCK, config, current_of, migrate, revisions
from shield.database.suitable import require_suitable
from shield.errors import BackupDamaged, BackupTooNew, DatabaseBusy, DatabaseNotEmpty, DatabaseUnavailable, ShieldError
from shield.settings import PostgresSettings

_OWN_ROWS = frozenset({"cursors_secret", "workers"})
"""Tables that an installation fills by itself: rows in them are no content."""
_IS_SEQUENCE = "SELECT EXISTS (SELECT FROM pg_class WHERE relkind = 'S' AND relname = %s AND relnamespace = current_schema()::regnamespace)"
_POLL = 0.2  # seconds between two looks at a lock


@dataclass(frozen=True)
class Restored:
    """What was restored."""

    from_schema: str
    to_schema: str
    created: datetime
    tables: int
    rows: int
    bytes: int


async def check(chunks: AsyncIterator[bytes]) -> Header:
    """Read a backup to its end without a database.

    Raises:
        BackupDamaged, BackupTooNew: it could not be restored.
    """
    unpacker = Unpacker(chunks)
    header = await unpacker.open()
    _require_known(header)
    async for _ in unpacker.parts():
        pass
    return header


async def restore(engine: AsyncEngine, chunks: AsyncIterator[bytes], *, force: bool = False, limits: PostgresSettings) -> Restored:
    """Fill an empty database from a backup; with `force`, replace what is there.

    Raises:
        BackupDamaged: it is not whole, or is no backup.
        BackupTooNew: it, or the database, is of a later version.
        DatabaseNotEmpty: there is something, and `force` is not given.
        DatabaseBusy: somebody migrates, saves or restores this database.
        DatabaseUnsuitable: it does not meet what Shield needs.
        DatabaseUnavailable: it was lost on the way.
    """
    unpacker = Unpacker(chunks)
    header = await unpacker.open()
    _require_known(header)
    try:
        with database_errors():
            async with engine.begin() as connection:
                return await _restore(connection, unpacker, force=force, limits=limits)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable("The database was lost while it was being restored; it is as it was.") from error
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise BackupDamaged("The backup holds rows that the database refuses.") from error
    except ShieldError as error:
        cause = error.__cause__
        if isinstance(cause, DBAPIError) and getattr(cause.orig, "sqlstate", None) == "55P03":
            raise DatabaseBusy("Somebody uses the tables that are to be replaced; stop the fleet first.") from error
        raise


async def _restore(connection: AsyncConnection, unpacker: Unpacker, *, force: bool, limits: PostgresSettings) -> Restored:
    header = unpacker.header
    await _begin(connection, limits)
    await require_suitable(connection)
    before = await _make_room(connection, force=force)
    await migrate(connection, header.schema_version)
    driver = cast("Connection", (await connection.get_raw_connection()).driver_connection)
    await _empty(connection)
    await _prepare(driver, header)
    await _fill(driver, unpacker)
    await _finish(driver, header)
    reached = await migrate(connection)
    await renew(connection, header.created, before)
    await connection.execute(sa.text("ANALYZE"))
    return Restored(
        from_schema=header.schema_version,
        to_schema=reached,
        created=header.created,
        tables=len(header.tables),
        rows=sum(unpacker.trailer.rows.values()),
        bytes=unpacker.bytes,
    )


def _require_known(header: Header) -> None:
    if header.schema_version > HEAD:
        raise BackupTooNew(
            f"The backup was made by Shield {header.app_version} with schema {header.schema_version}; this version knows {HEAD}."
        )
    if header.schema_version not in revisions():
        raise BackupDamaged("The backup names a schema that never was.")


async def _begin(connection: AsyncConnection, limits: PostgresSettings) -> None:
    """Become the only one who changes the schema, with the settings that the rows were written with."""
    milliseconds = int(limits.schema_wait.total_seconds() * 1000)
    for setting, value in {
        "statement_timeout": "0",
        "idle_in_transaction_session_timeout": "0",  # between two tables we wait for the place that the bytes come from
        "lock_timeout": str(milliseconds),
        "datestyle": "ISO, YMD",
        "intervalstyle": "postgres",
        "timezone": "UTC",
        "client_encoding": "UTF8",
    }.items():
        await connection.execute(sa.text("SELECT set_config(:setting, :value, true)"), {"setting": setting, "value": value})
    until = asyncio.get_running_loop().time() + limits.schema_wait.total_seconds()
    while not (await connection.execute(sa.text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": LOCK})).scalar_one():
        if asyncio.get_running_loop().time() >= until:
            raise DatabaseBusy
        await asyncio.sleep(_POLL)


async def _make_room(connection: AsyncConnection, *, force: bool) -> Floors:
    """Leave no table of ours or of LightRAG's; how far the database had come."""
    tables = await _tables(connection)
    stands = await current_of(connection)
    if stands is not None and stands > HEAD:
        raise BackupTooNew(f"The database's schema is {stands}; this version knows {HEAD} and cannot replace it.")
    if not force and (full := [name for name in tables if name not in _OWN_ROWS and await _has_rows(connection, name)]):
        raise DatabaseNotEmpty(f"The database is not empty: there are rows in {', '.join(full[:5])}{' and others' if full[5:] else ''}.")
    reached = await floors(connection) if stands is not None else Floors()
    foreign = [name for name in tables if name.startswith(FOREIGN)]
    if foreign:
        await connection.execute(sa.text(f"DROP TABLE {', '.join(map(_quoted, foreign))}"))
    if stands is not None:

        def run(inner: sa.Connection) -> None:
            from alembic import command

            command.downgrade(config(inner), "base")

        await connection.run_sync(run)
    return reached


async def _has_rows(connection: AsyncConnection, table: str) -> bool:
    statement = sa.text(f"SELECT EXISTS (SELECT FROM {_quoted(table)})")  # noqa: S608  a name from the catalogue
    return bool((await connection.execute(statement)).scalar_one())


async def _empty(connection: AsyncConnection) -> None:
    """Remove the rows that migrations made, such as secrets: the backup brings its own."""
    ours = [_quoted(name) for name in await _tables(connection) if name in OURS]
    await connection.execute(sa.text(f"TRUNCATE {', '.join(ours)}"))


async def _tables(connection: AsyncConnection) -> list[str]:
    """The tables of ours and of LightRAG's."""
    names = sa.text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace ORDER BY 1")
    return [name for name in (await connection.execute(names)).scalars() if name in OURS or name.startswith(FOREIGN)]


async def _prepare(connection: Connection, header: Header) -> None:
    """Make the foreign tables, and see that every column is there."""
    for table in header.tables:
        if table.name.startswith(FOREIGN) != (table.foreign is not None):
            raise BackupDamaged
        if table.foreign is not None:
            await connection.execute(make_table(table.name, table.foreign))
    here: Mapping[str, set[str]] = {table.name: set(table.columns) for table in (await catalogue(connection)).tables}
    if any(not set(table.columns) <= here.get(table.name, set()) for table in header.tables):
        raise BackupDamaged("The backup names tables or columns that its schema does not have.")


async def _fill(connection: Connection, unpacker: Unpacker) -> None:
    """Load all rows; when this returns, the whole backup was read and was right."""
    tables = unpacker.header.tables
    rows = {table.name: 0 for table in tables}
    parts = unpacker.parts()
    part = await anext(parts, None)
    while part is not None:
        number = part.table
        table = tables[number]
        columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
        async with connection.cursor() as cursor:
            async with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), columns)) as copy:
                while part is not None and part.table == number:
                    await copy.write(part.data)
                    part = await anext(parts, None)
            rows[table.name] = cursor.rowcount
    if rows != unpacker.trailer.rows:
        raise BackupDamaged("The backup does not hold as many rows as it says.")


async def _finish(connection: Connection, header: Header) -> None:
    for table in header.tables:
        if table.foreign is not None:
            for statement in finish_table(table.name, table.foreign):
                await connection.execute(statement)
    for sequence in header.sequences:
        if not (await one(connection, _IS_SEQUENCE, (sequence.name,)))[0]:
            raise BackupDamaged("The backup names a sequence that its schema does not have.")
        await connection.execute("SELECT setval(%s::regclass, %s, %s)", (sequence.name, sequence.last, sequence.called))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
