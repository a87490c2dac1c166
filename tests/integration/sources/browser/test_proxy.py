"""The browser's proxy on real sockets: who may use it, for what, how long, and what it passes on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from shield.settings import EgressSettings
from shield.sources.browser.proxy import GREETING, Lane, Proxy, _Refused, _Request
from shield.sources.egress import EgressGuard
from tests.peers.site import Site


@dataclass
class Way:
    """A proxy, a lane of it, and a site behind it."""

    proxy: Proxy
    port: int
    lane: Lane
    site: Site

    def sign(self, secret: str | None = None) -> bytes:
        token = base64.b64encode(f"tab:{secret or self.lane.secret}".encode())
        return b"Proxy-Authorization: Basic " + token + b"\r\n"

    async def say(self, request: bytes) -> bytes:
        """Everything the proxy answers until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        async with asyncio.timeout(10):
            answer = await reader.read(-1)
        writer.close()
        return answer

    async def ask(self, line: str, *headers: bytes, body: bytes = b"") -> bytes:
        """A signed request."""
        return await self.say(line.encode() + b"\r\n" + self.sign() + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body)


async def resolve(host: str, port: int) -> list[str]:
    return {"site.test": ["127.0.0.1"], "inside.test": ["10.0.0.7"], "mixed.test": ["127.0.0.1", "10.0.0.7"]}[host]


@pytest.fixture
async def way() -> AsyncIterator[Way]:
    async with Site() as site:
        proxy = Proxy(EgressGuard(EgressSettings(allow=(site.allow,)), resolve), timeout=5)
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        await proxy.start(listener)
        try:
            async with proxy.lane(100_000) as lane:
                yield Way(proxy, port, lane, site)
        finally:
            await proxy.close()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


class TestWhoMayUseIt:
    async def test_nobody_without_the_secret_of_a_live_page(self, way: Way) -> None:
        line = f"GET {way.site.url}/ HTTP/1.1\r\n".encode()
        unsigned = await way.say(line + b"\r\n")
        assert status(unsigned) == 407
        assert b'Proxy-Authenticate: Basic realm="shield"' in unsigned
        for wrong in (way.sign("wrong"), b"Proxy-Authorization: Basic ?\r\n", b"Proxy-Authorization: Bearer x\r\n"):
            assert status(await way.say(line + wrong + b"\r\n")) == 407
        async with way.proxy.lane(1000) as other:
            ended = other.secret
        assert status(await way.say(line + way.sign(ended) + b"\r\n")) == 407
        assert way.site.log == []

    async def test_a_browser_learns_the_secret_by_a_greeting(self, way: Way) -> None:
        assert status(await way.ask(f"GET {GREETING} HTTP/1.1")) == 204

    async def test_connections_end_with_their_page(self, way: Way) -> None:
        way.site.endless("/endless")
        async with way.proxy.lane(10_000_000) as lane:
            reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
            writer.write(f"GET {way.site.url}/endless HTTP/1.1\r\n".encode() + way.sign(lane.secret) + b"\r\n")
            assert await reader.readuntil(b"more")
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                await reader.read(-1)
        assert lane.tasks == set()
        writer.close()


class TestForwarding:
    async def test_a_request_goes_on_without_what_is_the_proxys(self, way: Way) -> None:
        async def echo(request: web.Request) -> web.Response:
            return web.Response(text=f"{request.method} {await request.text()}")

        way.site.route("/echo?a=b", echo)
        answer = await way.ask(
            f"POST {way.site.url}/echo?a=b HTTP/1.1",
            b"Host: somewhere.else",
            b"X-Mine: 1",
            b"Connection: keep-alive, X-Mine",
            b"Proxy-Connection: keep-alive",
            b"Upgrade: websocket",
            b"Content-Length: 5",
            body=b"helloGET /smuggled HTTP/1.1\r\n\r\n",
        )
        assert answer.endswith(b"POST hello")
        assert [visit.path for visit in way.site.log] == ["/echo?a=b"]
        headers = {name.lower(): value for name, value in way.site.log[0].headers.items()}
        assert headers == {"host": f"127.0.0.1:{way.site.port}", "connection": "close", "x-mine": "1", "content-length": "5"}

    async def test_names_are_resolved_and_checked_here(self, way: Way) -> None:
        way.site.put("/", "found")
        assert (await way.ask(f"GET http://site.test:{way.site.port}/ HTTP/1.1")).endswith(b"found")
        for url in (
            "http://inside.test/",
            f"http://mixed.test:{way.site.port}/",
            "http://127.0.0.1:1/",
            "http://169.254.169.254/latest",
            "http://[::1]/",
            f"http://user@127.0.0.1:{way.site.port}/",
            f"https://127.0.0.1:{way.site.port}/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "/etc/passwd",
        ):
            assert status(await way.ask(f"GET {url} HTTP/1.1")) == 403, url
        assert len(way.site.log) == 1

    @pytest.mark.parametrize(
        ("line", "headers", "answer"),
        [
            ("PUT {url}/ HTTP/1.1", (), 403),
            ("GET {url}/ HTTP/1.1", (b"Transfer-Encoding: chunked",), 411),
            ("POST {url}/ HTTP/1.1", (b"Content-Length: 1", b"Content-Length: 2"), 400),
            ("POST {url}/ HTTP/1.1", (b"Content-Length: +1",), 400),
            ("GET {url}/ HTTP/1.1", (b"X: a\rY: b",), 400),
            ("GET {url}/ HTTP/1.1", (b"X: a\nY: b",), 400),
            ("GET {url}/ HTTP/1.1", (b" folded: line",), 400),
            ("GET {url}/ HTTP/1.1", (b"X : space before the colon",), 400),
            ("GET {url}/a b HTTP/1.1", (), 400),
            ("GET {url}/ HTTP/2", (), 400),
            ("CONNECT {place}/path HTTP/1.1", (), 403),
            ("CONNECT inside.test:443 HTTP/1.1", (), 403),
            ("CONNECT 127.0.0.1:22 HTTP/1.1", (), 403),
            ("CONNECT user@{place} HTTP/1.1", (), 403),
        ],
    )
    async def test_what_could_be_read_two_ways_goes_nowhere(self, way: Way, line: str, headers: tuple[bytes, ...], answer: int) -> None:
        request = line.format(url=way.site.url, place=f"127.0.0.1:{way.site.port}")
        assert status(await way.ask(request, *headers)) == answer
        assert way.site.log == []

    async def test_a_site_that_does_not_answer_is_a_bad_gateway(self, way: Way) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        way.proxy._guard = EgressGuard(EgressSettings(allow=(f"127.0.0.1/32:{port}",)))
        assert status(await way.ask(f"GET http://127.0.0.1:{port}/ HTTP/1.1")) == 502

    async def test_bytes_beyond_the_pages_budget_are_cut_off(self, way: Way) -> None:
        way.site.put("/big", bytes(500_000))
        answer = await way.ask(f"GET {way.site.url}/big HTTP/1.1")
        assert len(answer) <= 100_000
        assert way.lane.overdrawn
        assert await way.ask(f"GET {way.site.url}/big HTTP/1.1") == b""


class TestTunnels:
    async def test_only_tls_may_ride_in_a_tunnel(self, way: Way) -> None:
        connect = f"CONNECT 127.0.0.1:{way.site.port} HTTP/1.1\r\n".encode() + way.sign() + b"\r\n"
        assert await way.say(connect + b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n") == b"HTTP/1.1 200 OK\r\n\r\n"
        assert way.site.log == []

    async def test_a_tunnel_carries_both_ways_untouched(self, way: Way) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"<" + await reader.readexactly(6) + b">")
            writer.close()

        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            way.proxy._guard = EgressGuard(EgressSettings(allow=(f"127.0.0.1/32:{port}",)))
            connect = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n".encode() + way.sign() + b"\r\n"
            assert await way.say(connect + b"\x16hello") == b"HTTP/1.1 200 OK\r\n\r\n<\x16hello>"


@given(st.binary(max_size=300))
def test_any_head_is_a_request_or_refused(head: bytes) -> None:
    try:
        request = _Request.parse(head + b"\r\n\r\n")
    except _Refused:
        return
    assert not any(mark in part for part in (request.method, request.target) for mark in " \r\n\0")
    assert not any(mark in text for header in request.headers for text in header for mark in "\r\n\0")
