"""The format of a backup file: a line that names it, then frames, each with a checksum.

The first frame is the header (JSON: schema, version, tables with their columns, sequences), the last one the trailer (JSON: rows of each
table, and the SHA-256 of every byte before it). Between them lie the tables in the header's order, as PostgreSQL's text COPY, which is
the same from version 15 to 18, cut into compressed parts. Whoever reads it never holds more than one part, believes nothing whose
checksum is wrong, and knows at the end that nothing is missing. A checksum is no signature: protect the file as you protect the database.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shield.database.backup.structure import Name, TableDef
from shield.errors import BackupDamaged, BackupTooNew
from shield.settings import MiB

FORMAT = 1
PART_BYTES = 4 * MiB
"""How much of a table a part holds, uncompressed."""

_NAME = b"SHIELD-BACKUP "
_LINE = _NAME + b"%d\n" % FORMAT
_FRAME = struct.Struct(">BIII32s")  # kind, table, length, length as stored, SHA-256 of the fields before it and of what is stored
_FIELDS = struct.Struct(">BIII")
_LARGEST = 16 * MiB  # of a frame, so that a damaged length costs no memory
_LEVEL = 3  # of zlib: text shrinks about as well as with 6, in a third of the time

M = TypeVar("M", bound=BaseModel)

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Kind(IntEnum):
    """What a frame is."""

    HEADER = 1
    PART = 2
    TRAILER = 3


class _Json(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SequenceDef(_Json):
    """Where a sequence stands."""

    name: Name
    last: Count
    called: bool


class Header(_Json):
    """What a backup holds, before anything of it is read."""

    schema_version: Annotated[str, Field(pattern=r"^\d{4}$")]
    app_version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+]{1,40}$")]
    created: datetime
    postgres: str
    tables: tuple[TableDef, ...]
    sequences: tuple[SequenceDef, ...]


class Trailer(_Json):
    """What it held, once all is read."""

    rows: dict[str, Count]
    sha256: str


@dataclass(frozen=True)
class Part:
    """A piece of a table."""

    table: int
    """Its place among the header's tables."""
    data: bytes


class Packer:
    """Makes frames, and remembers what it made."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self.bytes = 0

    def begin(self, header: Header) -> bytes:
        """The file's first bytes."""
        return self._count(_LINE) + self._frame(Kind.HEADER, 0, header.model_dump_json().encode())

    def part(self, table: int, data: bytes) -> bytes:
        """A piece of a table."""
        return self._frame(Kind.PART, table, data)

    def end(self, rows: dict[str, int]) -> bytes:
        """The file's last bytes."""
        trailer = Trailer(rows=rows, sha256=self._whole.hexdigest())
        return self._frame(Kind.TRAILER, 0, trailer.model_dump_json().encode())

    @property
    def sha256(self) -> str:
        """Of all that was made so far."""
        return self._whole.hexdigest()

    def _frame(self, kind: Kind, table: int, data: bytes) -> bytes:
        stored = zlib.compress(data, _LEVEL)
        fields = _FIELDS.pack(kind, table, len(data), len(stored))
        return self._count(fields + hashlib.sha256(fields + stored).digest() + stored)

    def _count(self, data: bytes) -> bytes:
        self._whole.update(data)
        self.bytes += len(data)
        return data


class Unpacker:
    """Reads a backup: `open` it, take all its `parts`, and then there is a `trailer`.

    Raises:
        BackupDamaged: something is wrong, missing or too much.
        BackupTooNew: the format is a later one.
    """

    header: Header
    trailer: Trailer

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = bytearray()
        self._whole = hashlib.sha256()
        self.bytes = 0

    async def open(self) -> Header:
        """Read the first frame."""
        line = await self._exactly(len(_LINE))
        if line != _LINE:
            if line.startswith(_NAME):
                raise BackupTooNew("The backup's format is a later one than this version reads.")
            raise BackupDamaged("This is no backup of Shield.")
        self._whole.update(line)
        kind, _, data = await self._frame()
        if kind != Kind.HEADER:
            raise BackupDamaged
        self.header = _parsed(Header, data)
        return self.header

    async def parts(self) -> AsyncIterator[Part]:
        """The tables' pieces in their order; at the end the trailer was read and the whole was right."""
        last = 0
        while True:
            before = self._whole.hexdigest()
            kind, table, data = await self._frame()
            if kind == Kind.TRAILER:
                break
            if kind != Kind.PART or not last <= table < len(self.header.tables):
                raise BackupDamaged
            last = table
            yield Part(table, data)
        self.trailer = _parsed(Trailer, data)
        if self.trailer.sha256 != before or await self._more():
            raise BackupDamaged("The backup's checksum is wrong.")

    async def _frame(self) -> tuple[int, int, bytes]:
        head = await self._exactly(_FRAME.size)
        kind, table, length, stored_length, digest = _FRAME.unpack(head)
        if length > _LARGEST or stored_length > _LARGEST:
            raise BackupDamaged
        stored = await self._exactly(stored_length)
        if hashlib.sha256(head[: _FIELDS.size] + stored).digest() != digest:
            raise BackupDamaged("A part of the backup has a wrong checksum.")
        self._whole.update(head)
        self._whole.update(stored)
        return kind, table, _inflated(stored, length)

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                raise BackupDamaged("The backup ends too early.")
            self._buffer += chunk
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        self.bytes += count
        return taken

    async def _more(self) -> bool:
        """Whether there are bytes that nobody took."""
        return bool(self._buffer) or await anext(self._chunks, None) is not None


def _inflated(stored: bytes, length: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(stored, length + 1)
    except zlib.error as error:
        raise BackupDamaged from error
    if len(data) != length or not inflater.eof or inflater.unused_data:
        raise BackupDamaged
    return data


def _parsed(model: type[M], data: bytes) -> M:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise BackupDamaged("The backup holds what this version does not know.") from error
