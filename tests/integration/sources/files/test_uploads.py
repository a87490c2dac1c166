"""Uploads over both content stores: one-time tokens, owners, expiry, and crashes between content and row."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import create_engine
from shield.database.tables import upload_parts
from shield.database.tables import uploads as table
from shield.errors import DatabaseUnavailable, DocumentTooLarge, UnknownUpload, UploadIncomplete
from shield.settings import PostgresSettings, load
from shield.sources.contents import ContentStore, DiskStore, PartStore
from shield.sources.uploads import Uploads, create_uploads

SMALL = b"small content"
LARGE = os.urandom(1024) * 3000
ME, OTHER = "me", "other"


async def chunks(content: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def breaks_off(content: bytes) -> AsyncIterator[bytes]:
    yield content
    raise ConnectionResetError


@dataclass(frozen=True)
class Shelf:
    """Uploads on one of the stores, and a look behind it."""

    uploads: Uploads
    engine: AsyncEngine
    contents: Callable[[], set[str]]

    async def kept(self) -> set[str]:
        """The uploads whose content lies in the store, drafts included."""
        async with self.engine.connect() as connection:
            parts = (await connection.execute(sa.select(upload_parts.c.upload_id).distinct())).scalars()
            return self.contents() | {str(part) for part in parts}

    async def rows(self) -> int:
        async with self.engine.connect() as connection:
            return int((await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one())

    async def ids(self) -> list[UUID]:
        async with self.engine.connect() as connection:
            return list((await connection.execute(sa.select(table.c.id))).scalars())

    async def age(self, *ids: UUID) -> None:
        late = sa.text("now() - interval '1 second'")
        async with self.engine.begin() as connection:
            await connection.execute(sa.update(table).where(table.c.id.in_(ids)).values(expires_at=late))

    async def run(self, *statements: str) -> None:
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.execute(sa.text(statement))


REFUSE_COMMITS = (
    (
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.stored THEN RAISE EXCEPTION 'not today'; END IF; RETURN NULL; END $$"
    ),
    "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON uploads DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
)


@pytest.fixture(params=["disk", "database"])
def shelf(request: pytest.FixtureRequest, engine: AsyncEngine, data_dir: Path) -> Shelf:
    settings = load(file={"max_bytes": 4 * 1024 * 1024, "upload_sweep": 0 if request.param == "disk" else 60}).file
    store: ContentStore
    if request.param == "disk":
        folder = data_dir / "uploads"
        store = DiskStore(engine, folder, settings.upload_sweep)
        return Shelf(Uploads(engine, store, settings), engine, lambda: {entry.name for entry in folder.iterdir()})
    store = PartStore(engine, settings.upload_sweep)
    return Shelf(Uploads(engine, store, settings), engine, set)


class TestStore:
    @pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
    async def test_what_is_stored_is_read_back(self, shelf: Shelf, content: bytes) -> None:
        made = await shelf.uploads.store(ME, "a/b\\rep\0ort.pdf", "application/pdf", chunks(content))
        found, back = await shelf.uploads.read(ME, made.id)
        assert back == content
        assert found == made
        assert (found.name, found.mime, found.size, found.stored) == ("report.pdf", "application/pdf", len(content), True)
        assert found.sha256 == hashlib.sha256(content).hexdigest()

    async def test_a_small_file_lies_in_its_row(self, shelf: Shelf) -> None:
        await shelf.uploads.store(ME, "a.bin", None, chunks(SMALL))
        assert await shelf.kept() == set()

    async def test_a_file_larger_than_allowed_leaves_nothing(self, shelf: Shelf) -> None:
        with pytest.raises(DocumentTooLarge):
            await shelf.uploads.store(ME, "a.bin", None, chunks(LARGE * 2))
        assert await shelf.kept() == set()
        assert await shelf.rows() == 0

    async def test_a_sender_that_breaks_off_leaves_nothing(self, shelf: Shelf) -> None:
        with pytest.raises(ConnectionResetError):
            await shelf.uploads.store(ME, "a.bin", None, breaks_off(LARGE))
        assert await shelf.kept() == set()
        assert await shelf.rows() == 0

    async def test_a_strange_type_is_not_kept(self, shelf: Shelf) -> None:
        assert (await shelf.uploads.store(ME, "a", "text/html\r\nSet-Cookie: x", chunks(SMALL))).mime is None


class TestToken:
    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    async def test_an_announced_file_arrives_once(self, shelf: Shelf, content: bytes) -> None:
        made, token = await shelf.uploads.create(ME, "a.bin", None)
        with pytest.raises(UploadIncomplete):
            await shelf.uploads.read(ME, made.id)
        put = await shelf.uploads.put(made.id, token, chunks(content))
        assert (put.id, put.stored, put.size) == (made.id, True, len(content))
        with pytest.raises(UnknownUpload):
            await shelf.uploads.put(made.id, token, chunks(b"again"))
        assert (await shelf.uploads.read(ME, made.id))[1] == content

    async def test_the_token_is_not_in_the_database(self, shelf: Shelf) -> None:
        made, token = await shelf.uploads.create(ME, "a.bin", None)
        async with shelf.engine.connect() as connection:
            kept = (await connection.execute(sa.select(table.c.token_sha256).where(table.c.id == made.id))).scalar_one()
        assert len(token) >= 43
        assert kept == hashlib.sha256(token.encode()).hexdigest()

    async def test_a_wrong_token_or_id_is_unknown_before_a_byte_is_read(self, shelf: Shelf) -> None:
        made, token = await shelf.uploads.create(ME, "a.bin", None)
        for upload_id, shown in ((made.id, "wrong"), (uuid4(), token), (made.id, "\ud800")):
            with pytest.raises(UnknownUpload):
                await shelf.uploads.put(upload_id, shown, breaks_off(SMALL))

    async def test_a_failed_attempt_may_be_repeated(self, shelf: Shelf) -> None:
        made, token = await shelf.uploads.create(ME, "a.bin", None)
        with pytest.raises(DocumentTooLarge):
            await shelf.uploads.put(made.id, token, chunks(LARGE * 2))
        with pytest.raises(ConnectionResetError):
            await shelf.uploads.put(made.id, token, breaks_off(LARGE))
        assert await shelf.kept() == set()
        await shelf.uploads.put(made.id, token, chunks(LARGE))
        assert (await shelf.uploads.read(ME, made.id))[1] == LARGE

    async def test_of_two_senders_with_one_token_one_wins_whole(self, shelf: Shelf) -> None:
        made, token = await shelf.uploads.create(ME, "a.bin", None)
        mine, yours = LARGE, LARGE[::-1]
        results = await asyncio.gather(
            shelf.uploads.put(made.id, token, chunks(mine)), shelf.uploads.put(made.id, token, chunks(yours)), return_exceptions=True
        )
        assert sum(isinstance(result, UnknownUpload) for result in results) == 1
        upload, content = await shelf.uploads.read(ME, made.id)
        assert hashlib.sha256(content).hexdigest() == upload.sha256
        assert await shelf.kept() == {str(made.id)}


class TestOwners:
    async def test_anothers_upload_is_unknown(self, shelf: Shelf) -> None:
        made = await shelf.uploads.store(ME, "a.bin", None, chunks(SMALL))
        for call in (shelf.uploads.read(OTHER, made.id), shelf.uploads.get(OTHER, made.id), shelf.uploads.read(ME, uuid4())):
            with pytest.raises(UnknownUpload):
                await call
        assert (await shelf.uploads.get(ME, made.id)) == made


class TestExpiry:
    async def test_past_its_time_an_upload_is_unknown_and_then_gone(self, shelf: Shelf) -> None:
        late = [await shelf.uploads.store(ME, "a.bin", None, chunks(content)) for content in (SMALL, LARGE)]
        announced, token = await shelf.uploads.create(ME, "b.bin", None)
        await shelf.age(*(upload.id for upload in late), announced.id)
        fresh = await shelf.uploads.store(ME, "c.bin", None, chunks(LARGE))
        for upload in late:
            with pytest.raises(UnknownUpload):
                await shelf.uploads.read(ME, upload.id)
        with pytest.raises(UnknownUpload):
            await shelf.uploads.put(announced.id, token, chunks(SMALL))
        assert await shelf.uploads.expire() == 3
        assert await shelf.kept() == {str(fresh.id)}
        assert await shelf.rows() == 1

    async def test_an_upload_that_a_live_job_needs_stays_until_the_job_ends(self, shelf: Shelf) -> None:
        made = await shelf.uploads.store(ME, "a.bin", None, chunks(SMALL))
        await shelf.age(made.id)
        async with shelf.engine.begin() as connection:
            insert = sa.text(
                "INSERT INTO jobs (kind, principal, knowledge_base_id, knowledge_base, request_hash, deadline_at) "
                "VALUES ('ingest', 'me', gen_random_uuid(), 'default', 'h', now() + interval '1 day') RETURNING id"
            )
            job = (await connection.execute(insert)).scalar_one()
            await connection.execute(sa.update(table).values(job_id=job))
        assert await shelf.uploads.expire() == 0
        assert (await shelf.uploads.read(ME, made.id))[1] == SMALL
        async with shelf.engine.begin() as connection:
            await connection.execute(sa.text("UPDATE jobs SET status='completed', finished_at=now()"))
        with pytest.raises(UnknownUpload):
            await shelf.uploads.read(ME, made.id)
        assert await shelf.uploads.expire() == 1

    async def test_erasing_removes_row_and_file(self, shelf: Shelf) -> None:
        made = await shelf.uploads.store(ME, "a.bin", None, chunks(LARGE))
        assert await shelf.uploads.erase(made.id)
        assert not await shelf.uploads.erase(made.id)
        assert (await shelf.kept(), await shelf.rows()) == (set(), 0)


class TestCrashes:
    async def test_a_content_whose_row_was_never_committed_goes_with_the_sweep(self, shelf: Shelf) -> None:
        await shelf.run(*REFUSE_COMMITS)
        with pytest.raises(DBAPIError, match="not today"):
            await shelf.uploads.store(ME, "a.bin", None, chunks(LARGE))
        await shelf.run("DROP TRIGGER refuse ON uploads")
        await shelf.age(*await shelf.ids())
        await shelf.uploads.expire()
        assert (await shelf.kept(), await shelf.rows()) == (set(), 0)

    async def test_a_put_that_was_never_committed_may_be_repeated(self, shelf: Shelf) -> None:
        made, token = await shelf.uploads.create(ME, "a.bin", None)
        await shelf.run(*REFUSE_COMMITS)
        with pytest.raises(DBAPIError, match="not today"):
            await shelf.uploads.put(made.id, token, chunks(LARGE[::-1]))
        await shelf.run("DROP TRIGGER refuse ON uploads")
        await shelf.uploads.put(made.id, token, chunks(LARGE))
        assert (await shelf.uploads.read(ME, made.id))[1] == LARGE

    async def test_a_database_that_does_not_answer_is_a_typed_error(self) -> None:
        nowhere = create_engine("postgresql://nobody@127.0.0.1:1/none", PostgresSettings())
        with pytest.raises(DatabaseUnavailable):
            await Uploads(nowhere, PartStore(nowhere, timedelta(hours=1)), load().file).create(ME, "a", None)
        await nowhere.dispose()


async def test_the_mode_decides_where_large_contents_lie(engine: AsyncEngine, data_dir: Path) -> None:
    embedded = create_uploads(engine, load(data_dir=data_dir))
    made = await embedded.store(ME, "a.bin", None, chunks(LARGE))
    assert [entry.name for entry in (data_dir / "uploads").iterdir()] == [str(made.id)]
    urls = {"postgres": {"dsn": "postgresql://x/y"}, "redis": {"url": "redis://x"}, "qdrant": {"url": "http://x"}}
    fleet = create_uploads(engine, load(mode="server", data_dir=data_dir / "unused", **urls))
    assert (await fleet.read(ME, (await fleet.store(ME, "a.bin", None, chunks(LARGE))).id))[1] == LARGE
    assert not (data_dir / "unused").exists()
