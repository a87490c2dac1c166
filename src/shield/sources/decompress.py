"""Decompressing a body piece by piece, so that a bomb stops at the cap.

Never more than the cap plus one step lies in memory, whatever the ratio: zlib is asked for a bounded number of bytes at a time.
Known are identity, gzip (with a few members) and deflate, with or without its zlib header. One coding a body: nested codings
are not offered and not read.
"""

from __future__ import annotations

import zlib
from typing import Protocol

_STEP = 256 * 1024
_GZIP_MAGIC = 0x1F
_MAX_MEMBERS = 64  # each member copies the rest of its piece; real files have one


class BodyTooLarge(Exception):
    """The body is larger than the cap; `so_far()` holds the cap's worth."""


class BodyBroken(Exception):
    """The body is no valid stream of its coding, or ends too early."""


class Body(Protocol):
    """A body being read."""

    def feed(self, piece: bytes) -> None:
        """Take the next bytes off the wire. Raises BodyTooLarge or BodyBroken."""

    def finish(self) -> bytes:
        """The whole body. Raises BodyBroken if its end is missing."""

    def so_far(self) -> bytes:
        """What was read, at most the cap."""


def decompressor(coding: str, cap: int) -> Body:
    """A reader for one `Content-Encoding` that holds at most `cap` bytes.

    Raises:
        ValueError: an unknown coding.
    """
    coding = coding.strip().lower()
    if coding in {"", "identity"}:
        return Plain(cap)
    if coding in {"gzip", "x-gzip"}:
        return Zlib(cap, gzip=True)
    if coding == "deflate":
        return Zlib(cap, gzip=False)
    raise ValueError(coding)


class Plain:
    """Identity."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._held = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._held += piece[: self._cap - len(self._held) + 1]
        if len(self._held) > self._cap:
            raise BodyTooLarge

    def finish(self) -> bytes:
        """The whole body."""
        return bytes(self._held)

    def so_far(self) -> bytes:
        """What was read, at most the cap."""
        return bytes(self._held[: self._cap])


class Zlib(Plain):
    """gzip or deflate."""

    def __init__(self, cap: int, *, gzip: bool) -> None:
        super().__init__(cap)
        self._wbits = 16 + zlib.MAX_WBITS if gzip else zlib.MAX_WBITS
        self._gzip = gzip
        self._raw = 0
        self._members = 0
        self._inner: zlib._Decompress | None = None

    def feed(self, piece: bytes) -> None:
        """Take the next compressed bytes."""
        self._raw += len(piece)
        if self._raw > self._cap + _STEP:  # compressed data that yields nothing
            raise BodyTooLarge
        while piece:
            if self._inner is None or self._inner.eof:
                if self._members and not (self._gzip and piece[0] == _GZIP_MAGIC):
                    return  # padding behind the last member
                self._begin(piece)
            piece = self._some(piece)

    def finish(self) -> bytes:
        """The whole body."""
        if self._inner is not None and not self._inner.eof:
            self._some(b"")  # zlib may have taken all input and still hold a little output
            if not self._inner.eof:
                raise BodyBroken
        return super().finish()

    def _some(self, piece: bytes) -> bytes:
        """Decompress one bounded step; what is left of `piece`."""
        assert self._inner is not None  # noqa: S101 -- for the type checker
        try:
            super().feed(self._inner.decompress(piece, _STEP))
        except zlib.error as error:
            raise BodyBroken from error
        return self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail

    def _begin(self, piece: bytes) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise BodyBroken
        if not self._gzip and piece[0] & 0x0F != 8:  # no zlib header: some servers send bare deflate
            self._wbits = -zlib.MAX_WBITS
        self._inner = zlib.decompressobj(self._wbits)
