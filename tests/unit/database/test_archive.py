"""The backup file's format: what comes out is what went in, and nothing that is damaged comes out."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield.database.backup.archive import Header, Packer, SequenceDef, Unpacker
from shield.database.backup.structure import TableDef
from shield.errors import BackupDamaged, BackupTooNew, ShieldError

HEADER = Header(
    schema_version="0001",
    app_version="0.1.0",
    created=datetime(2026, 11, 2, tzinfo=UTC),
    postgres="18.4",
    tables=tuple(TableDef(name=name, columns=("id", "text")) for name in ("jobs", "documents", "chunks")),
    sequences=(SequenceDef(name="jobs_seq", last=7, called=True),),
)
Parts = list[tuple[int, bytes]]


def packed(parts: Parts, rows: dict[str, int] | None = None) -> bytes:
    packer = Packer()
    whole = packer.begin(HEADER) + b"".join(packer.part(*part) for part in parts)
    return whole + packer.end({"jobs": len(parts)} if rows is None else rows)


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def unpacked(data: bytes, size: int = 1000) -> Parts:
    unpacker = Unpacker(pieces(data, size))
    await unpacker.open()
    found = [(part.table, part.data) async for part in unpacker.parts()]
    assert unpacker.header == HEADER
    assert unpacker.bytes == len(data)
    return found


parts_of_tables = st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=300)), max_size=8).map(
    lambda parts: sorted(parts, key=lambda p: p[0])
)


@settings(max_examples=60, deadline=None)
@given(parts_of_tables, st.integers(1, 400))
async def test_what_was_packed_is_unpacked(parts: Parts, size: int) -> None:
    assert await unpacked(packed(parts), size) == parts


WHOLE = packed([(0, b"one\n" * 20), (2, b"two\n" * 9)])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
async def test_one_wrong_byte_anywhere_is_noticed(place: int, change: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[place] ^= change
    with pytest.raises((BackupDamaged, BackupTooNew)):
        await unpacked(bytes(damaged))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
async def test_a_file_that_ends_early_is_noticed(length: int) -> None:
    with pytest.raises(BackupDamaged):
        await unpacked(WHOLE[:length])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
async def test_any_bytes_are_read_or_refused_with_a_reason(data: bytes) -> None:
    for begin in (b"", b"SHIELD-BACKUP 1\n"):
        with pytest.raises(ShieldError):
            await unpacked(begin + data)


async def test_a_part_left_out_is_noticed_although_every_other_is_right() -> None:
    packer = Packer()
    first, *between = [packer.begin(HEADER), packer.part(0, b"one\n"), packer.part(0, b"two\n")]
    end = packer.end({"jobs": 2})
    with pytest.raises(BackupDamaged, match="checksum"):
        await unpacked(first + between[1] + end)
    with pytest.raises(BackupDamaged, match="checksum"):
        await unpacked(first + between[1] + between[0] + end)


async def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(BackupDamaged):
        await unpacked(WHOLE + b"x")


async def test_a_later_format_is_told_apart_from_damage() -> None:
    with pytest.raises(BackupTooNew):
        await unpacked(b"SHIELD-BACKUP 2\n" + WHOLE[16:])
    with pytest.raises(BackupDamaged, match="no backup"):
        await unpacked(b"PK\x03\x04" + b"\0" * 100)


async def test_a_part_that_unpacks_to_more_than_it_says_is_refused() -> None:
    import hashlib

    bomb = zlib.compress(b"\0" * 10_000_000)
    for length in (10, 16 * 1024**2 + 1):
        fields = struct.pack(">BIII", 1, 0, length, len(bomb))
        frame = fields + hashlib.sha256(fields + bomb).digest() + bomb
        with pytest.raises(BackupDamaged):
            await unpacked(b"SHIELD-BACKUP 1\n" + frame)
