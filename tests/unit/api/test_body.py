"""Bodies are bounded in bytes and time, and uploads pass through without being held."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from shield.api.app import create_app
from shield.api.multipart import open_file
from shield.errors import InvalidRequest
from shield.service.models import UploadCreate
from shield.settings import KiB, load
from tests.unit.api.test_problems import assert_problem, client_of
from tests.unit.stand_in import UPLOAD, StandIn

CONTENT = f"/uploads/{UPLOAD}/content"
JSON = {"content-type": "application/json"}


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def many(count: int, size: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * size


async def test_an_announced_length_above_the_limit_is_refused_unread(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    response = await client.post("/find", content=b"{" * (2 * KiB * KiB + 1), headers=JSON)
    assert_problem(response, "request.too_large")
    assert stand_in.calls == []


async def test_a_body_of_unknown_length_is_cut_at_the_limit(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    response = await client.post("/find", content=many(40, 64 * KiB), headers=JSON)
    assert_problem(response, "request.too_large")
    assert stand_in.calls == []


async def test_a_lie_about_the_length_does_not_help(client: httpx.AsyncClient) -> None:
    response = await client.post("/find", content=many(40, 64 * KiB), headers={**JSON, "content-length": "10"})
    assert_problem(response, "request.too_large")


async def test_a_body_at_the_limit_passes(client: httpx.AsyncClient) -> None:
    body = b'{"query": "a"' + b" " * (2 * KiB * KiB - 14) + b"}"
    assert (await client.post("/find", content=body, headers=JSON)).is_success


async def test_uploads_have_the_limit_of_files(stand_in: StandIn) -> None:
    app = create_app(stand_in, load(file={"max_bytes": 300 * KiB}, api={"max_body_bytes": 10 * KiB, "linger": 0.1}))
    async with client_of(app) as client:
        assert (await client.put(CONTENT, params={"token": "t"}, content=many(4, 64 * KiB))).is_success
        assert_problem(await client.put(CONTENT, params={"token": "t"}, content=many(9, 64 * KiB)), "request.too_large")
        assert_problem(await client.post("/uploads/announce", content=many(1, 11 * KiB), headers=JSON), "request.too_large")


async def test_a_body_that_stops_coming_is_given_up(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield b'{"query"'
        await asyncio.Event().wait()

    assert_problem(await client.post("/find", content=stalls(), headers=JSON), "request.timeout")
    assert stand_in.calls == []


async def test_a_body_that_comes_in_drops_is_given_up_in_the_end(stand_in: StandIn) -> None:
    async def drips() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b" "

    app = create_app(stand_in, load(api={"body_idle": 10, "body_timeout": 0.2, "linger": 0}))
    async with client_of(app) as client:
        assert_problem(await client.post("/find", content=drips(), headers=JSON), "request.timeout")


async def test_an_upload_reaches_the_port_while_it_is_still_being_sent(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    async def waits_for_the_port() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' + b"first" * 100
        await asyncio.wait_for(stand_in.progress.wait(), 2)  # the file's beginning is there although its end does not exist yet
        yield b"second\r\n--x--\r\n"

    response = await client.post("/uploads", content=waits_for_the_port(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert response.status_code == 201, response.text
    assert stand_in.digest.digest() == hashlib.sha256(b"first" * 100 + b"second").digest()


async def test_a_raw_upload_streams_too_and_asks_for_no_principal(stand_in: StandIn) -> None:
    async def nobody(_request: object) -> None:
        raise AssertionError

    async def waits_for_the_port() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.wait_for(stand_in.progress.wait(), 2)
        yield b"second"

    app = create_app(stand_in, load(), principal_of=nobody)  # type: ignore[arg-type]
    async with client_of(app) as client:
        response = await client.put(CONTENT, params={"token": "t"}, content=waits_for_the_port())
    assert response.status_code == 200
    assert stand_in.received == 11


def form(*parts: tuple[str, bytes], boundary: str = "x", end: bytes = b"--x--\r\n") -> bytes:
    body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts)
    return body + end


FILE = 'Content-Disposition: form-data; name="file"; filename="a.txt"'
FIELD = 'Content-Disposition: form-data; name="other"'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", form((FILE, b"a"))),
        ("multipart/form-data; boundary=" + "x" * 300, b""),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"rubbish"),
        ("multipart/form-data; boundary=x", form((FIELD, b"a"))),
        ("multipart/form-data; boundary=x", form((FILE, b"a"), (FILE, b"b"))),
        ("multipart/form-data; boundary=x", form((FILE, b"a"), end=b"")),
        ("multipart/form-data; boundary=x", form((FILE, b"a" * 500), end=b"")[:-200]),
        ("multipart/form-data; boundary=x", form((FIELD, b"a" * 70_000), (FILE, b"a"))),
        ("multipart/form-data; boundary=x", form(*[(FIELD, b"a")] * 30, (FILE, b"a"))),
        ("multipart/form-data; boundary=x", form(('Content-Disposition: form-data; name="file"', b"a"))),
        ("multipart/form-data; boundary=x", form(('Content-Disposition: form-data; name="file"; filename="' + "a" * 256 + '"', b"a"))),
        ("multipart/form-data; boundary=x", form(('Content-Disposition: form-data; name="file"; filename="a/"', b"a"))),
        ("multipart/form-data; boundary=x", form((FILE + "\r\nX: " + "y" * 10_000, b"a"))),
    ],
)
async def test_a_form_that_is_not_one_whole_file_is_refused(content_type: str, body: bytes, client: httpx.AsyncClient) -> None:
    response = await client.post("/uploads", content=body, headers={"content-type": content_type})
    assert_problem(response, "request.invalid")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a.txt", "a.txt"), ("Prüfbericht 3.pdf", "Prüfbericht 3.pdf"), ("../../etc/passwd", "passwd"), ("C:\\\\docs\\\\b.pdf", "b.pdf"),
        ("a%22b.txt", 'a"b.txt'), ("a%0D%0Ab", "a  b"),
    ],
)  # fmt: skip
async def test_a_file_name_is_a_name_and_no_path(written: str, name: str, client: httpx.AsyncClient, stand_in: StandIn) -> None:
    head = f'Content-Disposition: form-data; name="file"; filename="{written}"\r\nContent-Type: text/plain'
    response = await client.post("/uploads", content=form((head, b"a")), headers={"content-type": "multipart/form-data; boundary=x"})
    assert response.status_code == 201, response.text
    assert stand_in.calls[0][1]["filename"] == name
    assert stand_in.calls[0][1]["mime"] == "text/plain"


async def parse(body: bytes, cuts: list[int]) -> tuple[str, bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]

    async def receive() -> dict[str, object]:
        piece = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    request = Request({"type": "http", "method": "POST", "headers": [(b"content-type", b"multipart/form-data; boundary=x")]}, receive)
    file = await open_file(request)
    return file.filename, b"".join([chunk async for chunk in file.content])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=300).filter(lambda data: b"--x" not in data), st.lists(st.integers(0, 2000), max_size=20))
async def test_a_form_reads_the_same_however_it_is_cut(content: bytes, cuts: list[int]) -> None:
    assert await parse(form((FIELD, b"1"), (FILE, content), (FIELD, b"2")), cuts) == ("a.txt", content)


@settings(deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
async def test_rubbish_is_refused_and_never_a_defect(rubbish: bytes, cuts: list[int]) -> None:
    with pytest.raises(InvalidRequest):
        await parse(b"--x" + rubbish, cuts)


def test_an_announced_name_has_the_same_limits() -> None:
    assert UploadCreate(filename="a" * 255).filename
