"""Where backups lie: files that appear whole and closed to others, and objects in S3."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.backup import Backup, check, place_of, restore
from shield.errors import BackupDamaged, BackupPlaceRefused, BackupPlaceUnavailable, DatabaseUnavailable
from shield.settings import BackupSettings, MiB
from tests.integration.database.support import LIMITS, contents, save
from tests.peers.s3 import S3Peer, s3_peer

SETTINGS = BackupSettings(chunk=5 * MiB, timeout=timedelta(seconds=5))


async def content(size: int, *, breaks: bool = False) -> AsyncIterator[bytes]:
    for _ in range(size):
        yield os.urandom(MiB)
    if breaks:
        raise DatabaseUnavailable


async def read(address: str) -> bytes:
    return b"".join([block async for block in place_of(address, SETTINGS).read()])


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Peer]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    async with s3_peer() as peer:
        variables = {"ENDPOINT_URL": peer.url, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "here-1"}
        for name, value in variables.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield peer


class TestFile:
    async def test_it_is_for_its_owner_only_and_nothing_else_is_left(self, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            await place_of(str(tmp_path / "b"), SETTINGS).write(content(2))
        finally:
            os.umask(old)
        assert [(entry.name, stat.S_IMODE(entry.stat().st_mode), entry.stat().st_size) for entry in tmp_path.iterdir()] == [
            ("b", 0o600, 2 * MiB)
        ]

    async def test_it_overwrites_nothing(self, tmp_path: Path) -> None:
        there = tmp_path / "b"
        there.write_bytes(b"precious")
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        for target in (there, tmp_path / "link", tmp_path, Path("/dev/stdout")):
            with pytest.raises(BackupPlaceRefused, match="exists already"):
                await place_of(str(target), SETTINGS).write(content(1))
        assert there.read_bytes() == b"precious"

    async def test_a_backup_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(DatabaseUnavailable):
            await place_of(str(tmp_path / "b"), SETTINGS).write(content(1, breaks=True))
        assert list(tmp_path.iterdir()) == []

    async def test_a_folder_that_is_none_is_refused_with_a_reason(self, tmp_path: Path) -> None:
        with pytest.raises(BackupPlaceRefused, match="No such file"):
            await place_of(str(tmp_path / "none" / "b"), SETTINGS).write(content(1))
        with pytest.raises(BackupPlaceRefused, match="is no file"):
            await read(str(tmp_path))


class TestAddress:
    @pytest.mark.parametrize(
        "address",
        [
            "",
            "-",
            "s3://",
            "s3://bucket",
            "s3://bucket/",
            "s3://bucket/../x",
            "s3://b ucket/x",
            "s3://bucket/a//b",
            "http://h/x",
            "gs://b/x",
        ],
    )
    def test_what_is_neither_file_nor_object_is_refused(self, address: str) -> None:
        with pytest.raises(BackupPlaceRefused):
            place_of(address, SETTINGS)


class TestObject:
    async def test_a_database_goes_to_s3_and_comes_back(self, full: AsyncEngine, dsn: str, empty: AsyncEngine, s3: S3Peer) -> None:
        place = place_of("s3://bucket/daily/b", SETTINGS)
        await place.write(Backup(dsn, app_version="0.2.0", limits=LIMITS, stall=timedelta(seconds=10)).chunks())
        assert list(s3.objects) == ["bucket/daily/b"]
        await restore(empty, place.read(), limits=LIMITS)
        assert (await contents(empty))["chunks"] == (await contents(full))["chunks"]

    async def test_a_large_one_goes_in_parts_and_a_part_that_fails_is_sent_again(self, s3: S3Peer) -> None:
        s3.fail["part"] = [503]
        await place_of("s3://bucket/b", SETTINGS).write(content(12))
        assert s3.requests.count("part") == 4
        assert len(await read("s3://bucket/b")) == 12 * MiB

    async def test_it_overwrites_nothing(self, s3: S3Peer) -> None:
        s3.objects["bucket/b"] = b"precious"
        with pytest.raises(BackupPlaceRefused, match="exists already"):
            await place_of("s3://bucket/b", SETTINGS).write(content(1))
        assert s3.objects == {"bucket/b": b"precious"}

    @pytest.mark.parametrize("size", [0, 12])
    async def test_a_backup_that_fails_leaves_nothing(self, s3: S3Peer, size: int) -> None:
        with pytest.raises(DatabaseUnavailable):
            await place_of("s3://bucket/b", SETTINGS).write(content(size, breaks=True))
        assert (s3.objects, s3.unfinished) == ({}, {})

    async def test_what_is_not_there_cut_or_forbidden_has_a_reason(
        self, full: AsyncEngine, dsn: str, s3: S3Peer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(BackupPlaceRefused, match="does not exist"):
            await read("s3://bucket/b")
        s3.objects["bucket/b"] = (await save(dsn))[0].data[:-9]
        with pytest.raises(BackupDamaged):
            await check(place_of("s3://bucket/b", SETTINGS).read())
        s3.fail["GET"] = [403]
        with pytest.raises(BackupPlaceRefused, match="does not let us"):
            await read("s3://bucket/b")
        s3.fail["GET"] = [400]
        with pytest.raises(BackupPlaceUnavailable):
            await read("s3://bucket/b")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(BackupPlaceRefused, match="AWS_"):
            await place_of("s3://bucket/c", SETTINGS).write(content(1))
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(BackupPlaceRefused, match="does not let us"):
            await place_of("s3://bucket/c", SETTINGS).write(content(1))
