"""Uploads: files that wait for a job, by an id their owner knows.

A small file lies in its row; a larger one in a content store (`contents.py`): on disk when embedded, in the database in server mode.
The row is committed only after the content is durable, so a crash in between leaves a content without a row, which `expire` sweeps,
never a row without its content. A file's name is a label for people and for its type, and no part of any path. The token of an
announced upload is random, stored as a hash, and works once.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import jobs, uploads
from shield.errors import DocumentTooLarge, UnknownUpload, UploadIncomplete
from shield.settings import FileSettings, Settings
from shield.sources.contents import ContentStore, DiskStore, Draft, PartStore

TOKEN_BYTES = 32

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
    """A file that has arrived: in memory, or as a draft of the content store."""

    size: int
    sha256: str
    content: bytes | None
    draft: Draft | None

    async def keep(self, connection: AsyncConnection, upload_id: UUID) -> None:
        """Make it this upload's content; the row is written, and not yet committed."""
        if self.draft is not None:
            await self.draft.keep(connection, upload_id)


def create_uploads(engine: AsyncEngine, settings: Settings) -> Uploads:
    """The uploads of this mode: with large contents in the data directory, or in the database."""
    store: ContentStore
    if settings.mode == "server":
        store = PartStore(engine, settings.file.upload_sweep)
    else:
        store = DiskStore(engine, settings.data_dir / "uploads", settings.file.upload_sweep)
    return Uploads(engine, store, settings.file)


class Uploads:
    """The upload store.

    Args:
        engine: where the rows are.
        store: where large files go.
        settings: largest file, largest file kept in its row, time to live.
    """

    def __init__(self, engine: AsyncEngine, store: ContentStore, settings: FileSettings) -> None:
        self._engine = engine
        self._store = store
        self._settings = settings

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
            await got.keep(connection, upload_id)
        return Upload(**row)

    async def store(self, principal: str, name: str, mime: str | None, chunks: AsyncIterator[bytes]) -> Upload:
        """Store a file in one go.

        Raises:
            DocumentTooLarge: more than a file may have; nothing is kept.
        """
        upload_id = uuid4()
        async with self._receive(chunks) as got, self._transaction() as connection:
            made = await self._insert(
                connection, upload_id, principal, name, mime, size=got.size, sha256=got.sha256, content=got.content, stored=True
            )
            # If the commit fails or its answer is lost, the content stays: only the sweep, which asks the database, may remove it.
            await got.keep(connection, upload_id)
            return made

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
            content = await self._store.load(upload.id, int(self._settings.max_bytes))
            if content is None or len(content) != upload.size:
                raise UnknownUpload("The upload's content is gone.")
        return upload, bytes(content)

    async def erase(self, upload_id: UUID) -> bool:
        """Remove an upload and its content; False if there was none."""
        async with self._transaction() as connection:
            gone = (await connection.execute(sa.delete(uploads).where(uploads.c.id == upload_id))).rowcount
        await self._store.remove(upload_id)
        return bool(gone)

    async def expire(self) -> int:
        """Remove uploads past their time that no live job needs, and files that belong to no row; returns how many uploads."""
        async with self._transaction() as connection:
            late = sa.delete(uploads).where(uploads.c.expires_at <= sa.func.now(), ~_needed()).returning(uploads.c.id)
            expired = (await connection.execute(late)).scalars().all()
        for upload_id in expired:
            await self._store.remove(upload_id)
        await self._store.sweep()
        return len(expired)

    @asynccontextmanager
    async def _receive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[_Received]:
        """Take a stream in; a draft is removed at the end unless it was kept."""
        digest, size, buffer = hashlib.sha256(), 0, bytearray()
        draft: Draft | None = None
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._settings.max_bytes:
                    raise DocumentTooLarge(limit=int(self._settings.max_bytes))
                digest.update(chunk)
                buffer += chunk
                if size > self._settings.max_inline_bytes:
                    draft = draft or self._store.draft()
                    await draft.write(bytes(buffer))
                    buffer.clear()
            if draft is not None:
                await draft.complete()
            yield _Received(size, digest.hexdigest(), None if draft else bytes(buffer), draft)
        finally:
            if draft is not None:
                await draft.discard()

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


def _needed() -> sa.ColumnElement[bool]:
    """A live job names this upload."""
    return sa.exists().where(jobs.c.id == uploads.c.job_id, jobs.c.status.in_(["pending", "processing"]))


def _readable(principal: str, upload_id: UUID) -> sa.ColumnElement[bool]:
    return sa.and_(uploads.c.id == upload_id, uploads.c.principal == principal, sa.or_(uploads.c.expires_at > sa.func.now(), _needed()))
