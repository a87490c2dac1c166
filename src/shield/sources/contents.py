"""Where the content of an upload lies that is too large for its row: on disk, or in the database in parts.

Embedded, a file lies in the upload directory under its upload's id, and the row is committed only after the file is durable: a crash
in between leaves a file without a row, which the sweep removes, never a row without a file. The processes of a fleet share no disk,
so there it lies in the database, 1 MiB a part: while it arrives its parts hang on a draft row of their own, each written in a
transaction of its own, and the transaction that announces the upload takes them over. A draft that nobody takes over expires.
A restored backup holds all contents in parts, so the disk's store looks there too.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import upload_parts, uploads
from shield.errors import DatabaseUnavailable, RequestTimeout
from shield.settings import MiB

PART_BYTES = 1 * MiB
"""Size of a part in the database."""
PART = ".part"
"""Ending of a file that is still arriving."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NOBODY = ""  # the principal of a draft: no caller has this name


class Draft(Protocol):
    """Content that is arriving."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""

    async def complete(self) -> None:
        """All has arrived; it is durable when this returns."""

    async def keep(self, connection: AsyncConnection, upload_id: UUID) -> None:
        """Make it this upload's content, in the transaction that says so; the upload's row is there already."""

    async def discard(self) -> None:
        """Remove what was not kept; never raises for what is gone."""


class ContentStore(Protocol):
    """Contents by upload id."""

    def draft(self) -> Draft:
        """Begin to receive a content."""

    async def load(self, upload_id: UUID, limit: int) -> bytes | None:
        """A content, or as much of it as shows that it is longer than `limit`; None if there is none."""

    async def remove(self, upload_id: UUID) -> None:
        """Remove a content whose row is gone; no error if there is none."""

    async def sweep(self) -> None:
        """Remove what crashes left: contents without a row, and drafts nobody completes."""


class PartStore:
    """Contents in the database.

    Args:
        engine: the database.
        draft_ttl: how long a draft that gets no more bytes is kept.
    """

    def __init__(self, engine: AsyncEngine, draft_ttl: timedelta) -> None:
        self._engine = engine
        self._draft_ttl = draft_ttl

    def draft(self) -> Draft:
        """See `ContentStore`."""
        return _PartDraft(self._engine, self._draft_ttl)

    async def load(self, upload_id: UUID, limit: int) -> bytes | None:
        """See `ContentStore`."""
        query = sa.select(upload_parts.c.content).where(upload_parts.c.upload_id == upload_id).order_by(upload_parts.c.number)
        options = {"yield_per": 4}
        content: bytearray | None = None
        with database_errors():
            async with self._engine.connect() as connection, connection.stream(query, execution_options=options) as rows:
                async for row in rows:
                    content = bytearray() if content is None else content
                    content += row.content
                    if len(content) > limit:
                        break
        return None if content is None else bytes(content)

    async def remove(self, upload_id: UUID) -> None:
        """Nothing to do: parts go with their row."""

    async def sweep(self) -> None:
        """Nothing to do: drafts are rows that expire."""


class _PartDraft:
    def __init__(self, engine: AsyncEngine, ttl: timedelta) -> None:
        self._engine, self._ttl = engine, ttl
        self._id = uuid4()
        self._buffer = bytearray()
        self._number = 0
        self._kept = False

    async def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= PART_BYTES:
            await self._store(bytes(self._buffer[:PART_BYTES]))
            del self._buffer[:PART_BYTES]

    async def complete(self) -> None:
        if self._buffer:
            await self._store(bytes(self._buffer))
            self._buffer.clear()

    async def _store(self, part: bytes) -> None:
        async with _transaction(self._engine) as connection:
            if self._number == 0:
                row = {"id": self._id, "principal": _NOBODY, "name": "", "expires_at": sa.func.now() + self._ttl}
                await connection.execute(sa.insert(uploads).values(row))
            else:
                renew = sa.update(uploads).where(uploads.c.id == self._id).values(expires_at=sa.func.now() + self._ttl)
                if (await connection.execute(renew)).rowcount != 1:
                    raise RequestTimeout("The content paused for so long that what had arrived was removed.")
            await connection.execute(sa.insert(upload_parts).values(upload_id=self._id, number=self._number, content=part))
        self._number += 1

    async def keep(self, connection: AsyncConnection, upload_id: UUID) -> None:
        own = sa.select(uploads.c.id).where(uploads.c.id == self._id).with_for_update()  # the sweep takes this row first, too
        await connection.execute(own)
        taken = sa.update(upload_parts).where(upload_parts.c.upload_id == self._id).values(upload_id=upload_id)
        if (await connection.execute(taken)).rowcount != self._number:
            raise RequestTimeout("The content paused for so long that what had arrived was removed.")
        await connection.execute(sa.delete(uploads).where(uploads.c.id == self._id))
        self._kept = True

    async def discard(self) -> None:
        if self._number and not self._kept:
            with suppress(DatabaseUnavailable):  # then it expires
                async with _transaction(self._engine) as connection:
                    await connection.execute(sa.delete(uploads).where(uploads.c.id == self._id))


class DiskStore:
    """Contents as files of a directory that only we enter.

    Args:
        engine: where the rows are.
        directory: where the files go; made if missing.
        draft_ttl: how old a file without a row must be before it is removed.
    """

    def __init__(self, engine: AsyncEngine, directory: Path, draft_ttl: timedelta) -> None:
        self._engine = engine
        self._directory = directory
        self._draft_ttl = draft_ttl
        self._restored = PartStore(engine, draft_ttl)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def draft(self) -> Draft:
        """See `ContentStore`."""
        return _FileDraft(self._directory)

    async def load(self, upload_id: UUID, limit: int) -> bytes | None:
        """See `ContentStore`."""
        content = await asyncio.to_thread(self._read, str(upload_id), limit)
        return await self._restored.load(upload_id, limit) if content is None else content

    def _read(self, name: str, limit: int) -> bytes | None:
        try:
            descriptor = _open(self._directory, name, os.O_RDONLY)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit + 1)

    async def remove(self, upload_id: UUID) -> None:
        """See `ContentStore`."""
        _remove(self._directory, str(upload_id))

    async def sweep(self) -> None:
        """See `ContentStore`."""
        names = await asyncio.to_thread(self._old_files)
        ids = [UUID(name) for name in names if not name.endswith(PART)]
        async with _transaction(self._engine) as connection:
            known = set((await connection.execute(sa.select(uploads.c.id).where(uploads.c.id.in_(ids), uploads.c.stored))).scalars())
        for name in names:
            if name.endswith(PART) or UUID(name) not in known:
                _remove(self._directory, name)

    def _old_files(self) -> list[str]:
        horizon = time.time() - self._draft_ttl.total_seconds()
        found = []
        for entry in self._directory.iterdir():
            ours = entry.name.endswith(PART) or _ID.fullmatch(entry.name)
            with suppress(FileNotFoundError):
                if ours and entry.lstat().st_mtime <= horizon:
                    found.append(entry.name)
        return found


class _FileDraft:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._name = f"{uuid4()}{PART}"
        self._descriptor = _open(directory, self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(_write, self._descriptor, data)

    async def complete(self) -> None:
        await asyncio.to_thread(os.fsync, self._descriptor)

    async def keep(self, connection: AsyncConnection, upload_id: UUID) -> None:
        with _folder(self._directory) as folder:
            os.rename(self._name, str(upload_id), src_dir_fd=folder, dst_dir_fd=folder)
            await asyncio.to_thread(os.fsync, folder)

    async def discard(self) -> None:
        os.close(self._descriptor)
        _remove(self._directory, self._name)


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    with database_errors():
        async with engine.begin() as connection:
            yield connection


def _open(directory: Path, name: str, flags: int) -> int:
    with _folder(directory) as folder:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)


def _remove(directory: Path, name: str) -> None:
    with _folder(directory) as folder, suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


@contextmanager
def _folder(directory: Path) -> Iterator[int]:
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
