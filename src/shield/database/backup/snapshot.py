"""Saving: every table as it was at one moment, while everybody goes on working.

One REPEATABLE READ, READ ONLY transaction sees one state of all tables however long it takes, and blocks nobody but migrations, which
it keeps off by their own lock. The tables stream through in parts of 4 MiB, so the memory needed is that of a part and of the largest
row. Embedded, large uploads are files: those whose job still waits are saved as rows, as a fleet would hold them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, sql

from shield.database.backup.archive import PART_BYTES, Header, Packer
from shield.database.backup.catalogue import Catalogue, Connection, catalogue, one, sequences
from shield.database.backup.structure import TableDef
from shield.database.migrate import HEAD, LOCK
from shield.errors import BackupTooNew, DatabaseBusy, DatabaseUnavailable, SchemaBehind
from shield.settings import MiB, PostgresSettings

_SETTINGS = (
    "SET statement_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",  # between two statements we may wait for the place that takes the bytes
    "SET datestyle = 'ISO, YMD'",
    "SET intervalstyle = 'postgres'",
    "SET extra_float_digits = 3",  # every float comes back as it was
    "SET bytea_output = 'hex'",
    "SET timezone = 'UTC'",
)
_POLL = 0.2  # seconds between two looks at a lock
_UPLOAD_PART = 1 * MiB
_ON_DISK = """
    SELECT id, size FROM uploads u WHERE stored AND content IS NULL
       AND NOT EXISTS (SELECT FROM upload_parts p WHERE p.upload_id = u.id) ORDER BY id"""


@dataclass(frozen=True)
class Saved:
    """What a backup holds."""

    schema_version: str
    created: datetime
    tables: int
    rows: int
    bytes: int
    sha256: str
    """Of everything before the trailer, which repeats it."""
    skipped: tuple[str, ...]
    """Tables in the same schema that are not ours."""
    uploads_gone: int
    """Uploads of the snapshot whose file was no longer there; jobs that wait for them will say so."""


class Backup:
    """One backup: take all of `chunks`, and then there is a `saved`.

    Args:
        dsn: the database, without a transaction pooler in between.
        app_version: of this program.
        limits: how long to wait for a migration to end.
        stall: longest silence of the database.
        uploads: the directory of large uploads, when embedded.
    """

    saved: Saved

    def __init__(
        self, dsn: str, *, app_version: str, limits: PostgresSettings, stall: timedelta, uploads: Path | None = None, part: int = PART_BYTES
    ) -> None:
        self._dsn = dsn
        self._app_version = app_version
        self._limits = limits
        self._stall = stall.total_seconds()
        self._uploads = uploads
        self._part = part
        self._packer = Packer()
        self._rows: dict[str, int] = {}
        self._gone = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The file's bytes.

        Raises:
            DatabaseBusy: a migration or restore did not end.
            DatabaseUnavailable: the connection was lost; what came so far is worthless.
            BackupTooNew, SchemaBehind: the schema is not one that this program can save.
        """
        try:
            async with await connect(self._dsn, self._limits) as connection:
                for statement in _SETTINGS:
                    await connection.execute(statement.encode())
                await self._keep_migrations_off(connection)
                await connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                async for chunk in self._snapshot(connection):
                    yield chunk
                await connection.execute(b"COMMIT")
        except (psycopg.OperationalError, TimeoutError) as error:
            raise DatabaseUnavailable("The database was lost while it was being saved.") from error

    async def _snapshot(self, connection: Connection) -> AsyncIterator[bytes]:
        header, found = await self._header(connection)
        yield self._packer.begin(header)
        for number, table in enumerate(found.tables):
            buffer = bytearray()
            async for piece in self._rows_of(connection, table):
                buffer += piece
                while len(buffer) >= self._part:
                    yield await asyncio.to_thread(self._packer.part, number, bytes(buffer[: self._part]))
                    del buffer[: self._part]
            if buffer:
                yield await asyncio.to_thread(self._packer.part, number, bytes(buffer))
        sha256 = self._packer.sha256
        yield self._packer.end(self._rows)
        self.saved = Saved(
            schema_version=header.schema_version,
            created=header.created,
            tables=len(found.tables),
            rows=sum(self._rows.values()),
            bytes=self._packer.bytes,
            sha256=sha256,
            skipped=found.skipped,
            uploads_gone=self._gone,
        )

    async def _header(self, connection: Connection) -> tuple[Header, Catalogue]:
        version = await _version(connection)
        found = await catalogue(connection)
        created, postgres = await one(connection, "SELECT now(), current_setting('server_version')")
        header = Header(
            schema_version=version,
            app_version=self._app_version,
            created=created,
            postgres=postgres,
            tables=found.tables,
            sequences=await sequences(connection),
        )
        return header, found

    async def _rows_of(self, connection: Connection, table: TableDef) -> AsyncIterator[bytes]:
        columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
        statement = sql.SQL("COPY {} ({}) TO STDOUT").format(sql.Identifier(table.name), columns)
        async with connection.cursor() as cursor:
            async with cursor.copy(statement) as copy:
                while True:
                    async with asyncio.timeout(self._stall):
                        block = await copy.read()
                    if not block:
                        break
                    yield bytes(block)
            self._rows[table.name] = cursor.rowcount
        if table.name == "upload_parts" and self._uploads is not None:
            async for line in self._files(connection, self._uploads, table.columns):
                self._rows[table.name] += 1
                yield line

    async def _files(self, connection: Connection, folder: Path, columns: tuple[str, ...]) -> AsyncIterator[bytes]:
        """Rows of `upload_parts` for uploads that are files."""
        for upload_id, size in await (await connection.execute(_ON_DISK)).fetchall():
            descriptor = await asyncio.to_thread(_open, folder, upload_id, size)
            if descriptor is None:
                self._gone += 1
                continue
            try:
                number = 0
                while block := await asyncio.to_thread(os.read, descriptor, _UPLOAD_PART):
                    values = {"upload_id": str(upload_id), "number": str(number), "content": f"\\\\x{block.hex()}"}
                    yield ("\t".join(values[column] for column in columns) + "\n").encode()
                    number += 1
            finally:
                os.close(descriptor)

    async def _keep_migrations_off(self, connection: Connection) -> None:
        """Before the snapshot is taken, so that it sees a schema that stays."""
        until = asyncio.get_running_loop().time() + self._limits.schema_wait.total_seconds()
        while True:
            if (await one(connection, "SELECT pg_try_advisory_lock_shared(%s)", (LOCK,)))[0]:
                return
            if asyncio.get_running_loop().time() >= until:
                raise DatabaseBusy
            await asyncio.sleep(_POLL)


async def connect(dsn: str, limits: PostgresSettings) -> AsyncConnection[Any]:
    """A plain connection, each statement a transaction of its own unless one is begun.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    try:
        return await AsyncConnection.connect(
            dsn,
            autocommit=True,
            connect_timeout=max(2, int(limits.connect_timeout.total_seconds())),
            client_encoding="utf8",
            application_name="shield-backup",
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable from error


async def _version(connection: Connection) -> str:
    if not (await one(connection, "SELECT to_regclass('schema_version') IS NOT NULL"))[0]:
        raise SchemaBehind("The database is empty: there is nothing to save.")
    (version,) = await one(connection, "SELECT version FROM schema_version")
    if version > HEAD:
        raise BackupTooNew(f"The database's schema is {version}; this version knows {HEAD} and would not save all of it.")
    return str(version)


def _open(folder: Path, upload_id: UUID, size: int) -> int | None:
    """A whole upload's file; once open it stays readable, also when its job ends."""
    with suppress(OSError):
        descriptor = os.open(folder / str(upload_id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(descriptor).st_size == size:
            return descriptor
        os.close(descriptor)
    return None
