"""What is particular to each store of upload contents: files of a directory, and parts in the database."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.tables import upload_parts, uploads
from shield.errors import RequestTimeout, UnknownUpload
from shield.settings import load
from shield.sources.contents import PART_BYTES, DiskStore, PartStore
from shield.sources.uploads import Uploads
from tests.integration.sources.files.test_uploads import LARGE, ME, chunks

HOUR = timedelta(hours=1)


def on_disk(engine: AsyncEngine, folder: Path, age: timedelta = timedelta(0)) -> Uploads:
    return Uploads(engine, DiskStore(engine, folder, age), load().file)


def in_parts(engine: AsyncEngine, ttl: timedelta = HOUR) -> Uploads:
    return Uploads(engine, PartStore(engine, ttl), load().file)


def files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class TestDisk:
    async def test_a_large_file_is_for_its_owner_only(self, engine: AsyncEngine, data_dir: Path) -> None:
        folder = data_dir / "uploads"
        made = await on_disk(engine, folder).store(ME, "a.bin", None, chunks(LARGE))
        assert files(folder) == [str(made.id)]
        assert stat.S_IMODE((folder / str(made.id)).stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        async with engine.connect() as connection:
            assert (await connection.execute(sa.select(uploads.c.content))).scalar() is None

    async def test_a_file_without_a_row_is_swept_and_others_are_left_alone(self, engine: AsyncEngine, data_dir: Path) -> None:
        store = on_disk(engine, data_dir)
        kept = await store.store(ME, "a.bin", None, chunks(LARGE))
        announced, _ = await store.create(ME, "b.bin", None)
        for name in (str(uuid4()), f"{uuid4()}.part", str(announced.id), "README"):
            (data_dir / name).write_bytes(b"left by a crash")
        await store.expire()
        assert files(data_dir) == sorted([str(kept.id), "README"])

    async def test_young_files_are_left_alone_they_may_be_on_their_way(self, engine: AsyncEngine, data_dir: Path) -> None:
        store = on_disk(engine, data_dir, HOUR)
        (data_dir / f"{uuid4()}.part").write_bytes(b"half")
        await store.expire()
        assert len(files(data_dir)) == 1

    async def test_content_that_vanished_is_unknown_and_a_link_is_not_followed(self, engine: AsyncEngine, data_dir: Path) -> None:
        store = on_disk(engine, data_dir)
        made = await store.store(ME, "a.bin", None, chunks(LARGE))
        file = data_dir / str(made.id)
        file.write_bytes(b"cut")
        with pytest.raises(UnknownUpload):
            await store.read(ME, made.id)
        file.unlink()
        file.symlink_to("/etc/passwd")
        with pytest.raises(UnknownUpload):
            await store.read(ME, made.id)

    async def test_what_a_restored_backup_holds_in_parts_is_found(self, engine: AsyncEngine, data_dir: Path) -> None:
        made = await in_parts(engine).store(ME, "a.bin", None, chunks(LARGE))
        store = on_disk(engine, data_dir)
        assert (await store.read(ME, made.id))[1] == LARGE
        assert await store.erase(made.id)
        assert await parts(engine) == {}


class TestParts:
    @pytest.mark.parametrize("size", [PART_BYTES + 1, 2 * PART_BYTES, 2 * PART_BYTES + 7])
    async def test_a_content_comes_back_whatever_its_size(self, engine: AsyncEngine, size: int) -> None:
        content = os.urandom(size)
        store = in_parts(engine)
        made = await store.store(ME, "a.bin", None, chunks(content))
        assert (await store.read(ME, made.id))[1] == content
        assert max((await parts(engine))[made.id]) <= PART_BYTES

    async def test_a_draft_belongs_to_nobody_and_expires(self, engine: AsyncEngine) -> None:
        draft = PartStore(engine, timedelta(0)).draft()
        await draft.write(LARGE)
        (draft_id,) = await parts(engine)
        for principal in (ME, "local"):
            with pytest.raises(UnknownUpload):
                await in_parts(engine).read(principal, draft_id)
        assert await in_parts(engine).expire() == 1
        assert await parts(engine) == {}

    async def test_a_sender_who_paused_until_the_sweep_came_is_told(self, engine: AsyncEngine) -> None:
        store = PartStore(engine, timedelta(0))
        halfway, complete = store.draft(), store.draft()
        for draft in (halfway, complete):
            await draft.write(LARGE)
        await complete.complete()
        await in_parts(engine).expire()
        with pytest.raises(RequestTimeout):
            await halfway.write(LARGE)
        with pytest.raises(RequestTimeout):
            async with engine.begin() as connection:
                await complete.keep(connection, uuid4())
        assert await parts(engine) == {}

    async def test_a_content_with_a_part_missing_is_unknown(self, engine: AsyncEngine) -> None:
        store = in_parts(engine)
        made = await store.store(ME, "a.bin", None, chunks(LARGE))
        async with engine.begin() as connection:
            await connection.execute(sa.delete(upload_parts).where(upload_parts.c.number == 1))
        with pytest.raises(UnknownUpload):
            await store.read(ME, made.id)


async def parts(engine: AsyncEngine) -> dict[UUID, list[int]]:
    """The sizes of the parts in the database, by upload."""
    found: dict[UUID, list[int]] = {}
    async with engine.connect() as connection:
        for row in await connection.execute(sa.select(upload_parts.c.upload_id, sa.func.length(upload_parts.c.content).label("size"))):
            found.setdefault(row.upload_id, []).append(row.size)
    return found
