"""Fetching one page or document, politely, and only from where the egress guard allows.

Redirects are followed here, hop by hop: each hop passes the caller's gate (scope and robots.txt), the guard, and politeness
before a request is sent. Every request has a connection of its own, to the pinned addresses, with no cookies, no proxy from
the environment and no reuse between hosts. Bodies are decompressed here, piece by piece (gzip and deflate are all we offer), so
a bomb stops at the cap and costs no more memory than the cap. Time is counted while a request runs, not while it waits its turn.

A 429, or a 503 with Retry-After, rests the host for as long as it asks (<= `max_retry_after`) and is tried again
`throttle_retries` times. `fetch_document` serves a single address that a person named: that is no crawling, so robots.txt is
not asked, the cap is that of files, and any type passes, because the files' own pre-flight looks at the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog

from shield import __version__
from shield.errors import (
    DocumentTooLarge,
    EgressDenied,
    PageHttpError,
    PageNotFound,
    PageRedirectLoop,
    PageThrottled,
    PageTimeout,
    PageTooLarge,
    PageTypeUnsupported,
    PageUnreachable,
    ShieldError,
)
from shield.settings import Settings
from shield.sources.decompress import BodyBroken, BodyTooLarge, decompressor
from shield.sources.egress import EgressGuard, Refused, Target
from shield.sources.politeness import Politeness
from shield.sources.urls import canonical, join

if TYPE_CHECKING:
    from aiohttp import ClientResponse

USER_AGENT = f"Shield/{__version__} (+https://github.com/hx-citadel/shield)"
READABLE_TYPES = frozenset(
    {
        "text/html",
        "application/xhtml+xml",
        "text/plain",
        "text/markdown",
        "text/x-markdown",
        "text/csv",
        "application/csv",
        "application/pdf",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    }
)
_READABLE_ENDINGS = (".html", ".htm", ".txt", ".md", ".markdown", ".csv", ".pdf", ".docx", ".pptx", ".xlsx")
_UNTOLD_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PIECE = 64 * 1024
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")
_CHARSET = re.compile(r"[a-z0-9._:+-]{1,40}")

Gate = Callable[[str], Awaitable[timedelta | None]]
"""Asked before each hop with its canonical URL: raises to refuse it, returns the pause the host asks for."""


@dataclass(frozen=True)
class Fetched:
    """A page or document as the site sent it, decompressed."""

    url: str
    """As asked for, canonical."""
    final_url: str
    """Where the redirects ended, canonical."""
    status: int
    content_type: str
    """The media type alone, lower case; empty if the site told none."""
    charset: str | None
    body: bytes
    etag: str | None
    last_modified: str | None
    fetched_at: datetime


@dataclass(frozen=True)
class _Limits:
    size: int
    timeout: float
    too_large: type[ShieldError] = PageTooLarge
    any_type: bool = False
    cut: bool = False
    """Longer bodies are cut off instead of refused."""


@dataclass(frozen=True)
class _Redirect:
    location: str


@dataclass(frozen=True)
class _Throttled:
    host: str
    status: int
    retry_after: timedelta


class Fetcher:
    """Fetches through one guard and one politeness; one a process."""

    def __init__(self, guard: EgressGuard, politeness: Politeness, settings: Settings) -> None:
        self._guard = guard
        self._politeness = politeness
        self._crawl = settings.crawl
        self._pages = _Limits(settings.crawl.max_page_bytes, settings.crawl.page_timeout.total_seconds())
        self._robots = _Limits(settings.crawl.max_robots_bytes, settings.crawl.page_timeout.total_seconds(), any_type=True, cut=True)
        self._documents = _Limits(
            settings.file.max_bytes, settings.crawl.document_timeout.total_seconds(), too_large=DocumentTooLarge, any_type=True
        )

    async def fetch(self, url: str, *, gate: Gate | None = None, sent: Callable[[], None] | None = None) -> Fetched:
        """One page. `sent` is called when its first request is about to leave: from then on the page counts.

        Raises:
            ShieldError: `page.*`, `egress.*`, `crawl.url_invalid`, or whatever `gate` raised.
        """
        return await self._patiently(url, self._pages, gate, sent)

    async def fetch_document(self, url: str) -> Fetched:
        """One document that a person named; robots.txt is not asked.

        Raises:
            ShieldError: as `fetch`, but `document.too_large` above the files' cap.
        """
        return await self._patiently(url, self._documents, None, None)

    async def fetch_robots(self, url: str) -> Fetched:
        """A robots.txt, cut at its cap, of any type.

        Raises:
            ShieldError: as `fetch`.
        """
        return await self._patiently(url, self._robots, None, None)

    async def _patiently(self, url: str, limits: _Limits, gate: Gate | None, sent: Callable[[], None] | None) -> Fetched:
        url = canonical(url)
        answer = await self._follow(url, limits, gate, sent)
        for _ in range(self._crawl.throttle_retries):
            if isinstance(answer, Fetched) or answer.retry_after > self._crawl.max_retry_after:
                break
            self._politeness.pause(answer.host, answer.retry_after)
            answer = await self._follow(url, limits, gate, sent)
        if isinstance(answer, Fetched):
            return answer
        pause = answer.retry_after.total_seconds()
        raise PageThrottled(f"The site answered {answer.status} and asked to wait {pause:.0f} s.", retry_after=pause, status=answer.status)

    async def _follow(self, url: str, limits: _Limits, gate: Gate | None, sent: Callable[[], None] | None) -> Fetched | _Throttled:
        """Hop by hop from `url` to an answer."""
        hop, seen, left = url, {url}, limits.timeout
        for _ in range(self._crawl.max_redirects + 1):
            delay = await gate(hop) if gate else None
            target = await self._guard.check(hop)
            async with self._politeness.turn(target.host, delay):
                if sent:
                    sent()
                started = time.monotonic()
                with _typed_failures():
                    async with asyncio.timeout(left):
                        answer = await self._request(url, target, limits)
                left -= time.monotonic() - started
            if not isinstance(answer, _Redirect):
                return answer
            hop = join(hop, answer.location)
            if hop in seen:
                break
            seen.add(hop)
        raise PageRedirectLoop

    async def _request(self, url: str, target: Target, limits: _Limits) -> Fetched | _Redirect | _Throttled:
        async with self._connection(target) as response:
            early = self._by_status(response, target.host)
            if early is not None:
                return early
            kind = _token(_MEDIA_TYPE, response.content_type) if "Content-Type" in response.headers else ""
            if not limits.any_type and not _readable(kind, target.url):
                raise PageTypeUnsupported(f"The page is of type `{kind or 'unknown'}`, which is not read.")
            body = await _read(response, limits)
            return Fetched(
                url=url,
                final_url=target.url,
                status=response.status,
                content_type=kind,
                charset=_token(_CHARSET, response.charset or "") or None,
                body=body,
                etag=_header(response, "ETag"),
                last_modified=_header(response, "Last-Modified"),
                fetched_at=datetime.now(UTC),
            )

    @contextlib.asynccontextmanager
    async def _connection(self, target: Target) -> AsyncIterator[ClientResponse]:
        import aiohttp
        from yarl import URL

        connector = aiohttp.TCPConnector(
            resolver=_pinned(target), use_dns_cache=False, socket_factory=self._guard.socket_factory, force_close=True, limit=1
        )
        timeout = aiohttp.ClientTimeout(total=None)  # the caller's asyncio.timeout covers the whole page
        headers = {"User-Agent": USER_AGENT, "Accept": _ACCEPT, "Accept-Encoding": "gzip, deflate"}
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                timeout=timeout,
                max_line_size=8190,
                max_field_size=8190,
            ) as session,
            session.get(URL(target.url, encoded=True), headers=headers, allow_redirects=False) as response,
        ):
            yield response

    def _by_status(self, response: ClientResponse, host: str) -> _Redirect | _Throttled | None:
        status = response.status
        location = response.headers.get("Location")
        if status in _REDIRECTS and location:
            return _Redirect(location)
        retry_after = _retry_after(response.headers.get("Retry-After"))
        if status == 429 or (status == 503 and retry_after is not None):
            return _Throttled(host, status, self._crawl.default_retry_after if retry_after is None else retry_after)
        if status in {404, 410}:
            raise PageNotFound(status=status)
        if not 200 <= status < 300:
            raise PageHttpError(f"The site answered {status}.", status=status)
        return None


def create_fetcher(settings: Settings) -> Fetcher:
    """The process's fetcher, with its own guard and politeness.

    Raises:
        ConfigInvalid: an entry of SHIELD_EGRESS_ALLOW is not valid.
    """
    return Fetcher(EgressGuard(settings.egress), Politeness(settings.crawl), settings)


_ACCEPT = (
    ", ".join(("text/html", "application/xhtml+xml", *sorted(READABLE_TYPES - {"text/html", "application/xhtml+xml"}))) + ", */*;q=0.1"
)


def _pinned(target: Target) -> Any:
    """A resolver that knows the checked addresses of one host, and nothing else."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Pinned(AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[ResolveResult]:
            if host != target.host:
                raise OSError("not the host that was checked")
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=0,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
                for address in target.addresses
            ]

        async def close(self) -> None:
            """Holds nothing."""

    return Pinned()


@contextlib.contextmanager
def _typed_failures() -> Iterator[None]:
    """Say what went wrong on the wire in our own terms, without what the other side sent."""
    import aiohttp

    try:
        yield
    except TimeoutError as error:
        raise PageTimeout from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise PageUnreachable("The site's certificate is not valid.") from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, Refused):
            raise EgressDenied from error
        raise PageUnreachable from error
    except aiohttp.ClientResponseError as error:
        raise PageHttpError("The site's answer is not valid HTTP.") from error
    except (aiohttp.ClientPayloadError, BodyBroken) as error:
        raise PageUnreachable("The site broke off its answer, or it is damaged.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise PageUnreachable from error
    except ShieldError:
        raise
    except Exception as error:  # the boundary to a hostile peer: what its bytes make a parser raise is this page's end, not the job's
        structlog.get_logger(__name__).warning("answer could not be parsed", error=type(error).__name__)
        raise PageUnreachable("The site's answer cannot be read.") from error


async def _read(response: ClientResponse, limits: _Limits) -> bytes:
    """The decompressed body, at most `limits.size` bytes of it."""
    if response.content_length is not None and response.content_length > limits.size and not limits.cut:
        raise limits.too_large
    try:
        body = decompressor(response.headers.get("Content-Encoding", ""), limits.size)
    except ValueError as error:
        raise PageTypeUnsupported("The page is compressed in a way that was not asked for.") from error
    try:
        async for piece in response.content.iter_chunked(_PIECE):
            body.feed(piece)
        return body.finish()
    except BodyTooLarge as error:
        if limits.cut:
            return body.so_far()
        raise limits.too_large from error


def _readable(kind: str, url: str) -> bool:
    if kind in _UNTOLD_TYPES:
        path = url.split("?", 1)[0].lower()
        return not kind or path.endswith(_READABLE_ENDINGS)
    return kind in READABLE_TYPES


def _token(pattern: re.Pattern[str], value: str) -> str:
    """The value in lower case, or nothing if it is not what it should be: headers are hostile input too."""
    value = value.strip().lower()
    return value if pattern.fullmatch(value) else ""


def _header(response: ClientResponse, name: str) -> str | None:
    """A header's printable ASCII, cut to a sane length; None if there is none."""
    value = response.headers.get(name)
    return None if value is None else "".join(c for c in value if " " <= c <= "~")[:256] or None


def _retry_after(value: str | None) -> timedelta | None:
    """Seconds or an HTTP date; None if there is none or it makes no sense."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), 10**8))
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(timedelta(0), when - datetime.now(UTC))
