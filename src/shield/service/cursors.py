"""Opaque cursors: signed, bound to the query and the principal that made them, and short-lived.

A cursor is base64url of `expiry | binding | position | signature`; nothing of the query can be read from it, and the position is
something the caller was shown anyway. The secret lives in the database, so every replica accepts every other's cursors.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
import time
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import cursors_secret
from shield.errors import CursorInvalid

_HEAD = struct.Struct(">Q")
_MAC = 16  # bytes of the signature and of the binding


async def cursor_secret(engine: AsyncEngine) -> bytes:
    """The installation's secret, made by its first migration."""
    with database_errors():
        async with engine.connect() as connection:
            return bytes((await connection.execute(select(cursors_secret.c.secret))).scalar_one())


class Cursors:
    """Makes and reads cursors.

    Args:
        secret: at least 16 bytes, shared by all replicas.
        ttl: how long a cursor lives.
        clock: seconds since the epoch.
    """

    def __init__(self, secret: bytes, ttl: timedelta, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._ttl = ttl.total_seconds()
        self._clock = clock

    def make(self, position: str | int, *binding: str) -> str:
        """A cursor for `position`, valid only with the same `binding` (principal, knowledge base, query, filters ...)."""
        body = _HEAD.pack(int(self._clock() + self._ttl)) + self._digest("\x00".join(binding).encode()) + str(position).encode()
        return base64.urlsafe_b64encode(body + self._digest(body)).decode().rstrip("=")

    def read(self, cursor: str | None, *binding: str) -> str | None:
        """The position; None without a cursor.

        Raises:
            CursorInvalid: forged, expired, or made by another query or principal.
        """
        if not cursor:
            return None
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError) as error:
            raise CursorInvalid from error
        body, signature = raw[:-_MAC], raw[-_MAC:]
        if len(raw) < _HEAD.size + 2 * _MAC or not hmac.compare_digest(signature, self._digest(body)):
            raise CursorInvalid
        (expires,) = _HEAD.unpack_from(body)
        bound, position = body[_HEAD.size : _HEAD.size + _MAC], body[_HEAD.size + _MAC :]
        if expires < self._clock() or not hmac.compare_digest(bound, self._digest("\x00".join(binding).encode())):
            raise CursorInvalid
        return position.decode()

    def read_number(self, cursor: str | None, *binding: str) -> int:
        """A position that is a number; 0 without a cursor."""
        return int(self.read(cursor, *binding) or 0)

    def fingerprint(self, text: str) -> str:
        """A keyed hash: the same for the same text on this installation, and nothing to find the text by elsewhere."""
        return self._digest(b"fingerprint\x00" + text.encode()).hex()

    def _digest(self, data: bytes) -> bytes:
        return hmac.new(self._secret, data, hashlib.sha256).digest()[:_MAC]
