"""The fetcher against a real site on loopback: redirects, caps, time-outs, throttling, and every lock of the egress guard."""

from __future__ import annotations

import asyncio
import gzip
import socket
import tracemalloc
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from shield.errors import (
    DocumentTooLarge,
    EgressDenied,
    EgressPortDenied,
    PageHttpError,
    PageLeftScope,
    PageNotFound,
    PageRedirectLoop,
    PageThrottled,
    PageTimeout,
    PageTooLarge,
    PageTypeUnsupported,
    PageUnreachable,
    ShieldError,
    UrlInvalid,
)
from shield.sources.egress import EgressGuard, Target
from shield.sources.exchange import USER_AGENT, Validators
from shield.sources.fetch import Fetched, Fetcher
from shield.sources.politeness import Politeness
from tests.integration.sources.web.conftest import fetcher, web_settings
from tests.peers.site import Site, raw_server


async def test_a_page_arrives_whole_with_what_the_site_said_about_it(site: Site) -> None:
    site.put("/a", "<p>ä</p>", content_type="Text/HTML; Charset=UTF-8", ETag='"v1"', Last_Modified="Tue, 01 Jul 2025 10:00:00 GMT")
    got = await fetcher(site.port).fetch(f"HTTP://127.0.0.1:{site.port}/a#top")
    assert (got.url, got.final_url, got.status) == (f"{site.url}/a", f"{site.url}/a", 200)
    assert (got.content_type, got.charset, got.body.decode()) == ("text/html", "utf-8", "<p>ä</p>")
    assert (got.etag, got.last_modified) == ('"v1"', "Tue, 01 Jul 2025 10:00:00 GMT")
    assert datetime.now(UTC) - got.fetched_at < timedelta(seconds=5)


async def test_the_request_says_who_we_are_and_carries_nothing_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    site.put("/a", "x", Set_Cookie="a=b")
    one = fetcher(site.port)
    await one.fetch(f"{site.url}/a")
    await one.fetch(f"{site.url}/a")
    headers = site.log[1].headers
    assert headers["User-Agent"] == USER_AGENT
    assert headers["Host"] == f"127.0.0.1:{site.port}"
    assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding"} | {"Connection"} & set(headers)


@pytest.mark.parametrize("coding", ["gzip", "identity"])
async def test_bodies_are_decompressed(site: Site, coding: str) -> None:
    raw = b"hello " * 1000
    site.put("/a", gzip.compress(raw) if coding == "gzip" else raw, Content_Encoding=coding)
    assert (await fetcher(site.port).fetch(f"{site.url}/a")).body == raw


async def test_a_gzip_bomb_stops_at_the_cap_with_bounded_memory(site: Site) -> None:
    site.bomb("/bomb", megabytes=100)
    one = fetcher(site.port, page_timeout=20)
    tracemalloc.start()
    try:
        with pytest.raises(PageTooLarge):
            await one.fetch(f"{site.url}/bomb")
        assert tracemalloc.get_traced_memory()[1] < 24 * 1024 * 1024
    finally:
        tracemalloc.stop()


async def test_a_large_page_is_refused_before_or_while_it_is_read(site: Site) -> None:
    site.put("/told", b"x" * 2000)
    site.endless("/untold", pause=0)
    one = fetcher(site.port, max_page_bytes=1000)
    for path in ("/told", "/untold"):
        with pytest.raises(PageTooLarge):
            await one.fetch(site.url + path)


async def test_a_document_has_the_files_cap_any_type_and_no_robots(site: Site) -> None:
    site.robots = "User-agent: *\nDisallow: /"
    site.put("/doc", b"x" * 3000, content_type="application/zip")
    settings = web_settings(site.port, max_page_bytes=1000).model_copy(
        update={"file": web_settings().file.model_copy(update={"max_bytes": 4000})}
    )
    one = Fetcher(EgressGuard(settings.egress), Politeness(settings.crawl), settings)
    assert len((await one.fetch_document(f"{site.url}/doc")).body) == 3000
    site.put("/doc", b"x" * 5000, content_type="application/zip")
    with pytest.raises(DocumentTooLarge):
        await one.fetch_document(f"{site.url}/doc")
    assert site.hits("/robots.txt") == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, PageNotFound), (410, PageNotFound), *((status, PageHttpError) for status in (300, 302, 304, 400, 401, 403, 500, 502, 503))],
)
async def test_a_status_becomes_its_error_and_nothing_of_the_body(site: Site, status: int, error: type[ShieldError]) -> None:
    site.put("/x", "secret words", status=status)
    with pytest.raises(error) as caught:
        await fetcher(site.port).fetch(f"{site.url}/x")
    assert caught.value.details["status"] == status
    assert "secret" not in str(caught.value.public())


class TestTypes:
    @pytest.mark.parametrize("kind", ["image/png", "application/json", "text/css", "application/octet-stream", "a/b; c=d"])
    async def test_other_types_are_not_read(self, site: Site, kind: str) -> None:
        site.put("/x", "x", content_type=kind)
        with pytest.raises(PageTypeUnsupported):
            await fetcher(site.port).fetch(f"{site.url}/x")

    @pytest.mark.parametrize("kind", [b"\x80\xff/x", b"text", b"/", b"text/html/x; charset=\xff"])
    async def test_a_type_that_is_none_counts_as_untold_and_no_byte_of_it_comes_in(self, kind: bytes) -> None:
        async with raw_server(b"HTTP/1.1 200 OK\r\nETag: \xff\x80a\r\nContent-Type: " + kind + b"\r\nContent-Length: 1\r\n\r\nx") as port:
            got = await fetcher(port).fetch(f"http://127.0.0.1:{port}/x.txt")
        assert (got.content_type or "application/octet-stream", got.charset, got.etag) == ("application/octet-stream", None, None)

    async def test_an_untold_type_is_left_to_the_pre_flight(self, site: Site) -> None:
        site.put("/x.pdf", b"%PDF-", content_type="application/octet-stream")
        assert (await fetcher(site.port).fetch(f"{site.url}/x.pdf")).content_type == "application/octet-stream"
        async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx") as port:
            assert (await fetcher(port).fetch(f"http://127.0.0.1:{port}/")).content_type == ""

    async def test_a_coding_that_was_not_offered_is_not_read(self, site: Site) -> None:
        site.put("/x", b"x", Content_Encoding="br")
        with pytest.raises(PageTypeUnsupported):
            await fetcher(site.port).fetch(f"{site.url}/x")


class TestFiles:
    """PDF and Office files met as pages have the limits of files."""

    @pytest.mark.parametrize(("path", "kind"), [("/a.pdf", "application/pdf"), ("/b.docx", "application/octet-stream")])
    async def test_a_file_larger_than_a_page_may_be_is_read(self, site: Site, path: str, kind: str) -> None:
        site.put(path, b"x" * 3000, content_type=kind)
        got = await fetcher(site.port, max_page_bytes=2000).fetch(f"{site.url}{path}")
        assert len(got.body) == 3000

    async def test_a_file_has_the_time_of_files(self, site: Site) -> None:
        async def slow(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/pdf"})
            await response.prepare(request)
            await asyncio.sleep(0.5)
            await response.write(b"%PDF")
            return response

        site.route("/slow.pdf", slow)
        assert (await fetcher(site.port, page_timeout=0.3, document_timeout=5).fetch(f"{site.url}/slow.pdf")).body == b"%PDF"
        with pytest.raises(PageTimeout):
            await fetcher(site.port, page_timeout=0.1, document_timeout=0.2).fetch(f"{site.url}/slow.pdf")

    async def test_one_beyond_the_files_limit_is_the_documents_error(self, site: Site) -> None:
        site.put("/a.pdf", b"x" * 3000, content_type="application/pdf")
        settings = web_settings(site.port, max_page_bytes=1000)
        small = settings.model_copy(update={"file": settings.file.model_copy(update={"max_bytes": 2000})})
        with pytest.raises(DocumentTooLarge):
            await Fetcher(EgressGuard(small.egress), Politeness(small.crawl), small).fetch(f"{site.url}/a.pdf")


class TestConditions:
    async def test_an_unchanged_page_is_told_and_not_sent(self, site: Site) -> None:
        site.put("/a", "x", ETag='W/"v1"')
        got = await fetcher(site.port).fetch(f"{site.url}/a", validators=Validators(f"{site.url}/a", etag='W/"v1"'))
        assert (got.status, got.body, got.etag) == (304, b"", 'W/"v1"')

    async def test_the_question_goes_to_its_own_address_only(self, site: Site) -> None:
        site.redirect("/old", "/new")
        site.put("/new", "x", Last_Modified="Tue, 01 Jul 2025 10:00:00 GMT")
        asked = Validators(f"{site.url}/new", last_modified="Tue, 01 Jul 2025 10:00:00 GMT")
        assert (await fetcher(site.port).fetch(f"{site.url}/old", validators=asked)).status == 304
        assert ["If-Modified-Since" in visit.headers for visit in site.log] == [False, True]

    async def test_a_304_that_nobody_asked_for_is_an_error(self, site: Site) -> None:
        site.put("/a", status=304)
        for validators in (None, Validators(f"{site.url}/other", etag='"x"'), Validators(f"{site.url}/a")):
            with pytest.raises(PageHttpError, match="304"):
                await fetcher(site.port).fetch(f"{site.url}/a", validators=validators)

    @pytest.mark.parametrize("etag", ["unquoted", '"' + "x" * 300 + '"', '"a"b"', '"\xe4"'])
    @pytest.mark.parametrize("date", ["yesterday", "x" * 100, ""])
    async def test_what_could_not_be_asked_back_is_not_kept(self, site: Site, etag: str, date: str) -> None:
        site.put("/a", "x", ETag=etag, Last_Modified=date)
        got = await fetcher(site.port).fetch(f"{site.url}/a")
        assert (got.etag, got.last_modified) == (None, None)


class TestRedirects:
    async def test_they_are_followed_and_the_last_address_is_told(self, site: Site) -> None:
        site.redirect("/a", "b?x=1#y", status=301)
        site.redirect("/b?x=1", f"{site.url}/c", status=308)
        site.put("/c", "end")
        got = await fetcher(site.port).fetch(f"{site.url}/a")
        assert (got.url, got.final_url, got.body) == (f"{site.url}/a", f"{site.url}/c", b"end")

    async def test_a_loop_ends_at_the_first_repetition(self, site: Site) -> None:
        site.redirect("/a", "/b")
        site.redirect("/b", "/a")
        with pytest.raises(PageRedirectLoop):
            await fetcher(site.port).fetch(f"{site.url}/a")
        assert site.pages_log() == ["/a", "/b"]

    async def test_a_chain_ends_after_five(self, site: Site) -> None:
        for n in range(9):
            site.redirect(f"/{n}", f"/{n + 1}")
        with pytest.raises(PageRedirectLoop):
            await fetcher(site.port).fetch(f"{site.url}/0")
        assert site.pages_log() == [f"/{n}" for n in range(6)]

    @pytest.mark.parametrize(
        ("target", "error"),
        [
            ("http://169.254.169.254/latest/meta-data/", EgressDenied),
            ("http://[::1]/", EgressDenied),
            ("http://localhost/", EgressDenied),
            ("//10.0.0.1/", EgressDenied),
            ("http://93.184.215.14:22/", EgressPortDenied),
            ("http://user:pass@93.184.215.14/", UrlInvalid),
            ("file:///etc/passwd", UrlInvalid),
            ("http://2130706433/", UrlInvalid),
        ],
    )
    async def test_none_leads_to_where_the_guard_does_not_allow(self, site: Site, target: str, error: type[ShieldError]) -> None:
        site.redirect("/a", target)
        with pytest.raises(error):
            await fetcher(site.port).fetch(f"{site.url}/a")
        assert site.pages_log() == ["/a"]

    async def test_another_closed_loopback_port_is_never_asked(self, site: Site) -> None:
        async with Site(pages=1) as inner:
            site.redirect("/a", inner.url)
            with pytest.raises(EgressPortDenied):
                await fetcher(site.port).fetch(f"{site.url}/a")
            assert inner.log == []

    async def test_the_gate_is_asked_before_every_hop(self, site: Site) -> None:
        site.redirect("/a", "/b")
        site.redirect("/b", "/c")
        asked: list[str] = []

        async def gate(url: str) -> None:
            asked.append(url)
            if url.endswith("/c"):
                raise PageLeftScope

        with pytest.raises(PageLeftScope):
            await fetcher(site.port).fetch(f"{site.url}/a", gate=gate)
        assert asked == [f"{site.url}/a", f"{site.url}/b", f"{site.url}/c"]
        assert site.pages_log() == ["/a", "/b"]


class TestThrottling:
    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_short_retry_after_is_waited_out_twice(self, site: Site, status: int) -> None:
        site.throttle("/a", times=2, retry_after="0", status=status)
        assert b"at last" in (await fetcher(site.port).fetch(f"{site.url}/a")).body
        assert site.hits("/a") == 3

    async def test_the_pause_is_the_one_asked_for(self, site: Site) -> None:
        site.throttle("/a", times=1, retry_after="1")
        await fetcher(site.port).fetch(f"{site.url}/a")
        assert site.log[0].end is not None
        assert site.log[1].start - site.log[0].end >= 0.9

    async def test_after_two_retries_it_is_given_up(self, site: Site) -> None:
        site.throttle("/a", times=9, retry_after=None)
        with pytest.raises(PageThrottled):
            await fetcher(site.port).fetch(f"{site.url}/a")
        assert site.hits("/a") == 3

    @pytest.mark.parametrize(
        "told",
        [
            "2",
            "999999999999999999999",
            pytest.param(format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True), id="a date in two hours"),
        ],
    )
    async def test_a_long_pause_is_not_waited_out(self, site: Site, told: str) -> None:
        site.throttle("/a", times=9, retry_after=told)
        with pytest.raises(PageThrottled) as caught:
            await fetcher(site.port).fetch(f"{site.url}/a")
        assert site.hits("/a") == 1
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 1

    @pytest.mark.parametrize("told", ["soon", "-5", "1e3", "Tue, 99 Foo 2025", ""])
    async def test_a_retry_after_that_makes_no_sense_counts_as_none(self, site: Site, told: str) -> None:
        site.throttle("/a", times=1, retry_after=told)
        assert b"at last" in (await fetcher(site.port).fetch(f"{site.url}/a")).body

    async def test_the_pause_holds_for_the_hosts_other_pages(self, site: Site) -> None:
        site.throttle("/a", times=1, retry_after="1")
        site.put("/b", "b")
        one = fetcher(site.port, per_host=1)
        await asyncio.gather(one.fetch(f"{site.url}/a"), one.fetch(f"{site.url}/b"))
        assert min(visit.start for visit in site.log[1:]) - site.log[0].start >= 0.9


class TestBrokenPeers:
    @pytest.mark.parametrize("path", ["/late", "/drip"])
    async def test_a_slow_page_is_given_up_in_time(self, site: Site, path: str) -> None:
        site.delay = lambda p: 30 if p == "/late" else 0
        site.put("/late", "x")
        site.endless("/drip")
        with pytest.raises(PageTimeout):
            await fetcher(site.port, page_timeout=0.2).fetch(site.url + path)

    async def test_the_time_limit_covers_all_hops_together(self, site: Site) -> None:
        site.delay = lambda _: 0.15
        for n in range(9):
            site.redirect(f"/{n}", f"/{n + 1}")
        with pytest.raises(PageTimeout):
            await fetcher(site.port, page_timeout=0.4).fetch(f"{site.url}/0")

    async def test_nobody_listening_is_unreachable(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(PageUnreachable):
            await fetcher(port).fetch(f"http://127.0.0.1:{port}/")

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x00\x01\x02\x03" * 100,
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: text/html\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html\r\n\r\nZZZ\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\nContent-Type: text/html\r\n\r\nnope",
            b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X-Many: a\r\n" * 10_000 + b"\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
            b"HTTP/1.1 999 What\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ],
    )
    async def test_nonsense_is_a_typed_error_that_repeats_nothing(self, answer: bytes) -> None:
        async with raw_server(answer) as port:
            with pytest.raises(ShieldError) as caught:
                await fetcher(port).fetch(f"http://127.0.0.1:{port}/")
        assert isinstance(caught.value, PageUnreachable | PageHttpError | PageNotFound | UrlInvalid | PageTypeUnsupported)
        assert "SSH" not in str(caught.value.public())

    async def test_a_server_that_speaks_no_tls_is_unreachable(self, site: Site) -> None:
        with pytest.raises(PageUnreachable):
            await fetcher(site.port).fetch(f"https://127.0.0.1:{site.port}/")


class TestRebinding:
    async def test_only_the_checked_addresses_are_dialled(self, site: Site) -> None:
        """The name's second answer is private: it is never asked for, and the first one's address is dialled."""
        answers = iter([["127.0.0.1"], ["127.0.0.2"]])

        async def rebinding(host: str, port: int) -> list[str]:
            return next(answers)

        site.put("/", "here")
        got = await fetcher(site.port, resolve=rebinding).fetch(f"http://rebind.example:{site.port}/")
        assert got.body == b"here"
        assert site.log[0].headers["Host"] == f"rebind.example:{site.port}"
        assert next(answers) == ["127.0.0.2"]

    async def test_a_private_second_answer_at_a_redirect_is_refused(self, site: Site) -> None:
        answers = iter([["127.0.0.1"], ["127.0.0.1", "10.0.0.1"]])

        async def rebinding(host: str, port: int) -> list[str]:
            return next(answers)

        site.redirect("/", "/again")
        with pytest.raises(EgressDenied):
            await fetcher(site.port, resolve=rebinding).fetch(f"http://rebind.example:{site.port}/")
        assert site.pages_log() == ["/"]

    async def test_the_second_lock_holds_when_the_first_fails(self, site: Site) -> None:
        class Careless(EgressGuard):
            async def check(self, url: str) -> Target:
                return Target(url, "careless.example", site.port, ("127.0.0.1",))

        settings = web_settings()
        one = Fetcher(Careless(settings.egress), Politeness(settings.crawl), settings)
        with pytest.raises(EgressDenied):
            await one.fetch(f"http://careless.example:{site.port}/")
        assert site.log == []


async def test_a_cancelled_fetch_leaves_nothing_behind(site: Site) -> None:
    site.endless("/x")
    one = fetcher(site.port, per_host=1, concurrency=1)
    task = asyncio.create_task(one.fetch(f"{site.url}/x"))
    await site.visited(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    site.put("/y", "next")
    got: Fetched = await one.fetch(f"{site.url}/y")
    assert got.body == b"next"
