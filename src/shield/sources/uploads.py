"""Uploads: files that wait for a job, by an id their owner knows.

A small file lies in its row; a larger one in the upload directory, under its id, and the row is committed only after the
file is durable. A crash in between leaves a file without a row, which `expire` sweeps, never a row without a file. A file's
name is a label for people and for its type, and no part of any path. The token of an announced upload is random, stored as a
hash, and works once.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import time
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import jobs, uploads
from shield.errors import DocumentTooLarge, UnknownUpload, UploadIncomplete
from shield.settings import FileSettings

TOKEN_BYTES = 32
PART = ".part"

_MIME = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,120}(?:\s*;[\x20-\x7e]{0,100})?")
_COLUMNS = [column for column in uploads.c if column.name not in {"content", "token_sha256"}]


@dataclass(frozen=True)
class Upload:
    """What is known about an upload."""

    id: UUID
    principal: str
    name: str
    mime: str | None
    size: int | None
    sha256: str | None
    stored: bool
    job_id: UUID | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class _Received:
    """A file that has arrived: in memory, or in a temporary file of the directory."""

    size: int
    sha256: str
    content: bytes | None
    part: str | None


class Uploads:
    """The upload store.

    Args:
        engine: where the rows are.
        directory: where large files go; made if missing.
        settings: largest file, largest file kept in its row, time to live.
    """

    def __init__(self, engine: AsyncEngine, directory: Path, settings: FileSettings) -> None:
        self._engine = engine
        self._directory = directory
        self._settings = settings
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def create(self, principal: str, name: str, mime: str | None = None) -> tuple[Upload, str]:
        """Announce a file; returns the upload and the token that its one PUT must show."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        async with self._transaction() as connection:
            return await self._insert(connection, uuid4(), principal, name, mime, token_sha256=_hash(token)), token

    async def put(self, upload_id: UUID, token: str, chunks: AsyncIterator[bytes]) -> Upload:
        """Store the content of an announced upload. A failed attempt does not use the token up.

        Raises:
            UnknownUpload: no such upload, or the token is wrong or was used.
            DocumentTooLarge: more than a file may have; nothing is kept.
        """
        awaited = sa.and_(
            uploads.c.id == upload_id, uploads.c.token_sha256 == _hash(token), ~uploads.c.stored, uploads.c.expires_at > sa.func.now()
        )
        async with self._transaction() as connection:
            if await connection.scalar(sa.select(uploads.c.id).where(awaited)) is None:
                raise UnknownUpload
        async with self._receive(chunks) as got, self._transaction() as connection:
            values = {"size": got.size, "sha256": got.sha256, "content": got.content, "stored": True, "token_sha256": None}
            # The row is locked from here to the commit: of two senders with one token, one finds nothing to update.
            row = (await connection.execute(sa.update(uploads).where(awaited).values(values).returning(*_COLUMNS))).mappings().first()
            if row is None:
                raise UnknownUpload
            await self._keep(got, upload_id)
        return Upload(**row)

    async def store(self, principal: str, name: str, mime: str | None, chunks: AsyncIterator[bytes]) -> Upload:
        """Store a file in one go.

        Raises:
            DocumentTooLarge: more than a file may have; nothing is kept.
        """
        upload_id = uuid4()
        async with self._receive(chunks) as got, self._transaction() as connection:
            # If the commit fails or its answer is lost, the file stays: only the sweep, which asks the database, may remove it.
            await self._keep(got, upload_id)
            return await self._insert(
                connection, upload_id, principal, name, mime, size=got.size, sha256=got.sha256, content=got.content, stored=True
            )

    async def get(self, principal: str, upload_id: UUID) -> Upload:
        """What is known about an upload of this principal.

        Raises:
            UnknownUpload: no such upload, another's, or expired.
        """
        async with self._transaction() as connection:
            row = (await connection.execute(sa.select(*_COLUMNS).where(_readable(principal, upload_id)))).mappings().first()
        if row is None:
            raise UnknownUpload
        return Upload(**row)

    async def read(self, principal: str, upload_id: UUID) -> tuple[Upload, bytes]:
        """An upload of this principal with its content.

        Raises:
            UnknownUpload: no such upload, another's, or expired.
            UploadIncomplete: its content has not arrived.
        """
        query = sa.select(*_COLUMNS, uploads.c.content).where(_readable(principal, upload_id))
        async with self._transaction() as connection:
            row = (await connection.execute(query)).mappings().first()
        if row is None:
            raise UnknownUpload
        values = dict(row)
        content = values.pop("content")
        upload = Upload(**values)
        if not upload.stored:
            raise UploadIncomplete
        if content is None:
            content = await asyncio.to_thread(self._load, upload)
        return upload, bytes(content)

    async def erase(self, upload_id: UUID) -> bool:
        """Remove an upload and its content; False if there was none."""
        async with self._transaction() as connection:
            gone = (await connection.execute(sa.delete(uploads).where(uploads.c.id == upload_id))).rowcount
        self._remove(str(upload_id))
        return bool(gone)

    async def expire(self) -> int:
        """Remove uploads past their time that no live job needs, and files that belong to no row; returns how many uploads."""
        async with self._transaction() as connection:
            late = sa.delete(uploads).where(uploads.c.expires_at <= sa.func.now(), ~_needed()).returning(uploads.c.id)
            expired = (await connection.execute(late)).scalars().all()
        for upload_id in expired:
            self._remove(str(upload_id))
        await self._sweep()
        return len(expired)

    async def _sweep(self) -> None:
        """Files without a row: left by a crash between the file and its commit, or half received."""
        names = await asyncio.to_thread(self._old_files)
        ids = [UUID(name) for name in names if not name.endswith(PART)]
        async with self._transaction() as connection:
            known = set((await connection.execute(sa.select(uploads.c.id).where(uploads.c.id.in_(ids), uploads.c.stored))).scalars())
        for name in names:
            if name.endswith(PART) or UUID(name) not in known:
                self._remove(name)

    def _old_files(self) -> list[str]:
        horizon = time.time() - self._settings.upload_sweep.total_seconds()
        found = []
        for entry in self._directory.iterdir():
            ours = entry.name.endswith(PART) or re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", entry.name)
            with suppress(FileNotFoundError):
                if ours and entry.lstat().st_mtime <= horizon:
                    found.append(entry.name)
        return found

    @asynccontextmanager
    async def _receive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[_Received]:
        """Take a stream in; a temporary file is removed at the end unless it was kept."""
        digest, size, buffer, part = hashlib.sha256(), 0, bytearray(), None
        descriptor: int | None = None
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._settings.max_bytes:
                    raise DocumentTooLarge(limit=int(self._settings.max_bytes))
                digest.update(chunk)
                buffer += chunk
                if size > self._settings.max_inline_bytes:
                    if descriptor is None:
                        part = f"{uuid4()}{PART}"
                        descriptor = self._open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                    await asyncio.to_thread(_write, descriptor, bytes(buffer))
                    buffer.clear()
            if descriptor is not None:
                await asyncio.to_thread(os.fsync, descriptor)
            yield _Received(size, digest.hexdigest(), None if part else bytes(buffer), part)
        finally:
            if descriptor is not None:
                os.close(descriptor)
            if part is not None:
                self._remove(part)

    async def _keep(self, got: _Received, upload_id: UUID) -> None:
        """Give a received file its final name, durably."""
        if got.part is None:
            return
        with self._folder() as folder:
            os.rename(got.part, str(upload_id), src_dir_fd=folder, dst_dir_fd=folder)
            await asyncio.to_thread(os.fsync, folder)

    def _load(self, upload: Upload) -> bytes:
        try:
            descriptor = self._open(str(upload.id), os.O_RDONLY)
        except OSError as error:
            raise UnknownUpload("The upload's content is gone.") from error
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(int(self._settings.max_bytes) + 1)
        if len(content) != upload.size:
            raise UnknownUpload("The upload's content is gone.")
        return content

    def _open(self, name: str, flags: int) -> int:
        with self._folder() as folder:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)

    def _remove(self, name: str) -> None:
        with self._folder() as folder, suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)

    @contextmanager
    def _folder(self) -> Iterator[int]:
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield folder
        finally:
            os.close(folder)

    async def _insert(
        self, connection: AsyncConnection, upload_id: UUID, principal: str, name: str, mime: str | None, **values: Any
    ) -> Upload:
        row = {
            "id": upload_id,
            "principal": principal,
            "name": clean_name(name),
            "mime": mime if mime and _MIME.fullmatch(mime) else None,
            "expires_at": sa.func.now() + self._settings.upload_ttl,
            **values,
        }
        stored = await connection.execute(sa.insert(uploads).values(row).returning(*_COLUMNS))
        return Upload(**stored.mappings().one())

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        with database_errors():
            async with self._engine.begin() as connection:
                yield connection


def clean_name(name: str) -> str:
    """A file name as a label: its last part, without control and invisible characters, at most 255 of them, its ending kept."""
    visible = "".join(
        c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    )
    last = re.split(r"[/\\]", visible)[-1].strip().strip(".").strip() or "upload"
    if len(last) <= 255:
        return last
    stem, dot, ending = last.rpartition(".")
    return f"{stem[: 254 - len(ending)]}.{ending}" if dot and len(ending) <= 20 else last[:255]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _needed() -> sa.ColumnElement[bool]:
    """A live job names this upload."""
    return sa.exists().where(jobs.c.id == uploads.c.job_id, jobs.c.status.in_(["pending", "processing"]))


def _readable(principal: str, upload_id: UUID) -> sa.ColumnElement[bool]:
    return sa.and_(uploads.c.id == upload_id, uploads.c.principal == principal, sa.or_(uploads.c.expires_at > sa.func.now(), _needed()))
