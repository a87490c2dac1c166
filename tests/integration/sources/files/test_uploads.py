"""Uploads: one-time tokens, owners, expiry, large files on disk, and crashes between file and row."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.tables import uploads as table
from shield.errors import DatabaseUnavailable, DocumentTooLarge, UnknownUpload, UploadIncomplete
from shield.settings import FileSettings, load
from shield.sources.uploads import Uploads

SMALL = b"small content"
LARGE = os.urandom(1024) * 3000
ME, OTHER = "me", "other"


async def chunks(content: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def breaks_off(content: bytes) -> AsyncIterator[bytes]:
    yield content
    raise ConnectionResetError


@pytest.fixture
def store(engine: AsyncEngine, data_dir: Path) -> Uploads:
    return make(engine, data_dir)


def make(engine: AsyncEngine, data_dir: Path, **settings: object) -> Uploads:
    return Uploads(engine, data_dir / "uploads", load(file={"max_bytes": 4 * 1024 * 1024, "upload_sweep": 0, **settings}).file)


def files(data_dir: Path) -> list[str]:
    return sorted(entry.name for entry in (data_dir / "uploads").iterdir())


class TestStore:
    @pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
    async def test_what_is_stored_is_read_back(self, store: Uploads, content: bytes) -> None:
        made = await store.store(ME, "a/b\\rep\0ort.pdf", "application/pdf", chunks(content))
        found, back = await store.read(ME, made.id)
        assert back == content
        assert found == made
        assert (found.name, found.mime, found.size, found.stored) == ("report.pdf", "application/pdf", len(content), True)
        assert found.sha256 == hashlib.sha256(content).hexdigest()

    async def test_a_large_file_lies_on_disk_for_its_owner_only(self, store: Uploads, data_dir: Path, engine: AsyncEngine) -> None:
        made = await store.store(ME, "a.bin", None, chunks(LARGE))
        assert files(data_dir) == [str(made.id)]
        assert stat.S_IMODE((data_dir / "uploads" / str(made.id)).stat().st_mode) == 0o600
        assert stat.S_IMODE((data_dir / "uploads").stat().st_mode) == 0o700
        async with engine.connect() as connection:
            assert (await connection.execute(sa.select(table.c.content))).scalar() is None

    async def test_a_small_file_lies_in_its_row(self, store: Uploads, data_dir: Path) -> None:
        await store.store(ME, "a.bin", None, chunks(SMALL))
        assert files(data_dir) == []

    async def test_a_file_larger_than_allowed_leaves_nothing(self, store: Uploads, data_dir: Path, engine: AsyncEngine) -> None:
        with pytest.raises(DocumentTooLarge):
            await store.store(ME, "a.bin", None, chunks(LARGE * 2))
        assert files(data_dir) == []
        assert await rows(engine) == 0

    async def test_a_sender_that_breaks_off_leaves_nothing(self, store: Uploads, data_dir: Path, engine: AsyncEngine) -> None:
        with pytest.raises(ConnectionResetError):
            await store.store(ME, "a.bin", None, breaks_off(LARGE))
        assert files(data_dir) == []
        assert await rows(engine) == 0

    async def test_a_strange_type_is_not_kept(self, store: Uploads) -> None:
        assert (await store.store(ME, "a", "text/html\r\nSet-Cookie: x", chunks(SMALL))).mime is None


class TestToken:
    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    async def test_an_announced_file_arrives_once(self, store: Uploads, content: bytes) -> None:
        made, token = await store.create(ME, "a.bin", None)
        with pytest.raises(UploadIncomplete):
            await store.read(ME, made.id)
        put = await store.put(made.id, token, chunks(content))
        assert (put.id, put.stored, put.size) == (made.id, True, len(content))
        with pytest.raises(UnknownUpload):
            await store.put(made.id, token, chunks(b"again"))
        assert (await store.read(ME, made.id))[1] == content

    async def test_the_token_is_not_in_the_database(self, store: Uploads, engine: AsyncEngine) -> None:
        made, token = await store.create(ME, "a.bin", None)
        async with engine.connect() as connection:
            kept = (await connection.execute(sa.select(table.c.token_sha256).where(table.c.id == made.id))).scalar_one()
        assert len(token) >= 43
        assert kept == hashlib.sha256(token.encode()).hexdigest()

    async def test_a_wrong_token_or_id_is_unknown_before_a_byte_is_read(self, store: Uploads) -> None:
        made, token = await store.create(ME, "a.bin", None)
        for upload_id, shown in ((made.id, "wrong"), (uuid4(), token), (made.id, "\ud800")):
            with pytest.raises(UnknownUpload):
                await store.put(upload_id, shown, breaks_off(SMALL))

    async def test_a_failed_attempt_may_be_repeated(self, store: Uploads, data_dir: Path) -> None:
        made, token = await store.create(ME, "a.bin", None)
        with pytest.raises(DocumentTooLarge):
            await store.put(made.id, token, chunks(LARGE * 2))
        with pytest.raises(ConnectionResetError):
            await store.put(made.id, token, breaks_off(LARGE))
        assert files(data_dir) == []
        await store.put(made.id, token, chunks(LARGE))
        assert (await store.read(ME, made.id))[1] == LARGE

    async def test_of_two_senders_with_one_token_one_wins_whole(self, store: Uploads, data_dir: Path) -> None:
        made, token = await store.create(ME, "a.bin", None)
        mine, yours = LARGE, LARGE[::-1]
        results = await asyncio.gather(
            store.put(made.id, token, chunks(mine)), store.put(made.id, token, chunks(yours)), return_exceptions=True
        )
        assert sum(isinstance(result, UnknownUpload) for result in results) == 1
        upload, content = await store.read(ME, made.id)
        assert hashlib.sha256(content).hexdigest() == upload.sha256
        assert files(data_dir) == [str(made.id)]


class TestOwners:
    async def test_anothers_upload_is_unknown(self, store: Uploads) -> None:
        made = await store.store(ME, "a.bin", None, chunks(SMALL))
        for call in (store.read(OTHER, made.id), store.get(OTHER, made.id), store.read(ME, uuid4())):
            with pytest.raises(UnknownUpload):
                await call
        assert (await store.get(ME, made.id)) == made


class TestExpiry:
    async def test_past_its_time_an_upload_is_unknown_and_then_gone(self, store: Uploads, data_dir: Path, engine: AsyncEngine) -> None:
        late = [await store.store(ME, "a.bin", None, chunks(content)) for content in (SMALL, LARGE)]
        announced, token = await store.create(ME, "b.bin", None)
        await age(engine, *(upload.id for upload in late), announced.id)
        fresh = await store.store(ME, "c.bin", None, chunks(LARGE))
        for upload in late:
            with pytest.raises(UnknownUpload):
                await store.read(ME, upload.id)
        with pytest.raises(UnknownUpload):
            await store.put(announced.id, token, chunks(SMALL))
        assert await store.expire() == 3
        assert files(data_dir) == [str(fresh.id)]
        assert await rows(engine) == 1

    async def test_an_upload_that_a_live_job_needs_stays_until_the_job_ends(self, store: Uploads, engine: AsyncEngine) -> None:
        made = await store.store(ME, "a.bin", None, chunks(SMALL))
        await age(engine, made.id)
        async with engine.begin() as connection:
            insert = sa.text(
                "INSERT INTO jobs (kind, principal, knowledge_base_id, knowledge_base, request_hash, deadline_at) "
                "VALUES ('ingest', 'me', gen_random_uuid(), 'default', 'h', now() + interval '1 day') RETURNING id"
            )
            job = (await connection.execute(insert)).scalar_one()
            await connection.execute(sa.update(table).values(job_id=job))
        assert await store.expire() == 0
        assert (await store.read(ME, made.id))[1] == SMALL
        async with engine.begin() as connection:
            await connection.execute(sa.text("UPDATE jobs SET status='completed', finished_at=now()"))
        with pytest.raises(UnknownUpload):
            await store.read(ME, made.id)
        assert await store.expire() == 1

    async def test_erasing_removes_row_and_file(self, store: Uploads, data_dir: Path, engine: AsyncEngine) -> None:
        made = await store.store(ME, "a.bin", None, chunks(LARGE))
        assert await store.erase(made.id)
        assert not await store.erase(made.id)
        assert (files(data_dir), await rows(engine)) == ([], 0)


class TestCrashes:
    async def test_a_file_whose_row_was_never_committed_is_swept(self, store: Uploads, data_dir: Path) -> None:
        kept = await store.store(ME, "a.bin", None, chunks(LARGE))
        (data_dir / "uploads" / str(uuid4())).write_bytes(b"no row")
        (data_dir / "uploads" / f"{uuid4()}.part").write_bytes(b"half")
        (data_dir / "uploads" / "README").write_bytes(b"not ours")
        await store.expire()
        assert files(data_dir) == sorted([str(kept.id), "README"])

    async def test_young_files_are_left_alone_they_may_be_on_their_way(self, engine: AsyncEngine, data_dir: Path) -> None:
        store = make(engine, data_dir, upload_sweep=3600)
        (data_dir / "uploads" / f"{uuid4()}.part").write_bytes(b"half")
        await store.expire()
        assert len(files(data_dir)) == 1

    async def test_a_file_whose_put_was_never_committed_is_swept_and_the_put_may_be_repeated(
        self, store: Uploads, data_dir: Path, engine: AsyncEngine
    ) -> None:
        made, token = await store.create(ME, "a.bin", None)
        (data_dir / "uploads" / str(made.id)).write_bytes(b"from before the crash")
        await store.expire()
        assert files(data_dir) == []
        (data_dir / "uploads" / str(made.id)).write_bytes(b"from before the crash")
        await store.put(made.id, token, chunks(LARGE))
        assert (await store.read(ME, made.id))[1] == LARGE

    async def test_a_row_that_cannot_be_written_leaves_a_file_for_the_sweep(
        self, store: Uploads, engine: AsyncEngine, data_dir: Path
    ) -> None:
        async def renamed(away: str, to: str) -> None:
            async with engine.begin() as connection:
                await connection.execute(sa.text(f"ALTER TABLE {away} RENAME TO {to}"))

        await renamed("uploads", "away")
        with pytest.raises(DBAPIError):
            await store.store(ME, "a.bin", None, chunks(LARGE))
        await renamed("away", "uploads")
        assert len(files(data_dir)) == 1
        await store.expire()
        assert files(data_dir) == []

    async def test_a_database_that_does_not_answer_is_a_typed_error(self, data_dir: Path) -> None:
        from shield.database.engine import create_engine
        from shield.settings import PostgresSettings

        nowhere = create_engine("postgresql://nobody@127.0.0.1:1/none", PostgresSettings())
        with pytest.raises(DatabaseUnavailable):
            await Uploads(nowhere, data_dir / "uploads", FileSettings()).create(ME, "a", None)
        await nowhere.dispose()

    async def test_content_that_vanished_from_disk_is_unknown(self, store: Uploads, data_dir: Path) -> None:
        made = await store.store(ME, "a.bin", None, chunks(LARGE))
        file = data_dir / "uploads" / str(made.id)
        file.write_bytes(b"cut")
        with pytest.raises(UnknownUpload):
            await store.read(ME, made.id)
        file.unlink()
        file.symlink_to("/etc/passwd")
        with pytest.raises(UnknownUpload):
            await store.read(ME, made.id)


async def rows(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one())


async def age(engine: AsyncEngine, *ids: UUID) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.update(table).where(table.c.id.in_(ids)).values(expires_at=sa.text("now() - interval '1 second'")))
