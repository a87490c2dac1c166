"""Decompression in bounded steps."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.sources.decompress import BodyBroken, BodyTooLarge, decompressor


def packed(coding: str, data: bytes) -> bytes:
    if coding == "gzip":
        return gzip.compress(data)
    if coding == "bare deflate":
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return packer.compress(data) + packer.flush()
    return zlib.compress(data) if coding == "deflate" else data


def read(coding: str, raw: bytes, *, cap: int = 10**6, piece: int = 1000) -> bytes:
    body = decompressor(coding.removeprefix("bare "), cap)
    for start in range(0, len(raw), piece):
        body.feed(raw[start : start + piece])
    return body.finish()


@given(st.sampled_from(["", "gzip", "deflate", "bare deflate"]), st.binary(max_size=2000), st.integers(1, 300), st.integers(1, 50))
def test_a_body_comes_out_as_it_went_in_whatever_the_pieces(coding: str, data: bytes, piece: int, repeat: int) -> None:
    assert read(coding, packed(coding, data * repeat), piece=piece) == data * repeat


def test_the_cap_is_exact() -> None:
    for coding in ("identity", "gzip", "deflate"):
        assert read(coding, packed(coding, bytes(5000)), cap=5000) == bytes(5000)
        with pytest.raises(BodyTooLarge):
            read(coding, packed(coding, bytes(5001)), cap=5000)


def test_what_fits_stays_readable_after_the_cap() -> None:
    body = decompressor("gzip", 100)
    with pytest.raises(BodyTooLarge):
        body.feed(gzip.compress(b"x" * 1000))
    assert body.so_far() == b"x" * 100


def test_a_bomb_costs_no_more_memory_than_the_cap() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    zeros = bytes(1024 * 1024)
    raw = b"".join([*(bomb.compress(zeros) for _ in range(64)), bomb.flush()])
    assert len(raw) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            read("gzip", raw, cap=1024 * 1024, piece=65536)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_ends_too_early_is_broken(coding: str) -> None:
    with pytest.raises(BodyBroken):
        read(coding, packed(coding, b"some text that matters")[:-6])


@pytest.mark.parametrize(("coding", "raw"), [("gzip", b"not gzip at all"), ("deflate", b"\xff" * 40)])
def test_noise_is_broken(coding: str, raw: bytes) -> None:
    with pytest.raises(BodyBroken):
        read(coding, raw)


def test_an_empty_body_is_empty() -> None:
    assert read("gzip", b"") == b""


def test_a_few_members_are_read_and_padding_is_ignored() -> None:
    assert read("gzip", gzip.compress(b"a") + gzip.compress(b"b") + b"\0" * 7, piece=3) == b"ab"


def test_a_flood_of_empty_members_is_broken() -> None:
    with pytest.raises(BodyBroken):
        read("gzip", gzip.compress(b"") * 1000)


def test_compressed_bytes_that_yield_nothing_stop_at_the_cap() -> None:
    stored = b"\x00\x00\x00\xff\xff" * 200_000  # empty stored blocks
    with pytest.raises(BodyTooLarge):
        read("deflate", zlib.compress(b"")[:2] + stored, cap=1000, piece=65536)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress", "x"])
def test_codings_that_were_not_offered_are_not_read(coding: str) -> None:
    with pytest.raises(ValueError, match=coding):
        decompressor(coding, 10)
