"""Fetching one page or document, politely, and only from where the egress guard allows.

Redirects are followed here, hop by hop: each hop passes the caller's gate (scope and robots.txt), the guard, and politeness
before a request is sent. Every request has a connection of its own to the pinned addresses (`exchange.py`). Bodies are
decompressed here, piece by piece (gzip and deflate are all we offer), so a bomb stops at the cap and costs no more memory than
the cap. Time is counted while a request runs, not while it waits its turn. A PDF or Office file met as a page has the limits of
files, from the moment that its type is known.

A 429, or a 503 with Retry-After, rests the host for as long as it asks (<= `max_retry_after`) and is tried again
`throttle_retries` times. With `validators` the site may answer 304, which is then the answer's status, its body empty.
`fetch_document` serves a single address that a person named: that is no crawling, so robots.txt is not asked, the cap is that of
files, and any type passes, because the files' own pre-flight looks at the bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shield.errors import (
    DocumentTooLarge,
    PageHttpError,
    PageNotFound,
    PageRedirectLoop,
    PageThrottled,
    PageTooLarge,
    PageTypeUnsupported,
    ShieldError,
)
from shield.settings import Settings
from shield.sources import exchange as http
from shield.sources.decompress import BodyTooLarge, decompressor
from shield.sources.egress import EgressGuard, Target
from shield.sources.exchange import Validators
from shield.sources.politeness import Politeness
from shield.sources.urls import canonical, join

if TYPE_CHECKING:
    from aiohttp import ClientResponse

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_OFFICE = "application/vnd.openxmlformats-officedocument"
FILE_TYPES = frozenset(
    {
        "application/pdf",
        f"{_OFFICE}.wordprocessingml.document",
        f"{_OFFICE}.presentationml.presentation",
        f"{_OFFICE}.spreadsheetml.sheet",
    }
)
READABLE_TYPES = FILE_TYPES | {
    *("text/html", "application/xhtml+xml", "text/plain", "text/markdown", "text/x-markdown", "text/csv", "application/csv"),
}
_FILE_ENDINGS = (".pdf", ".docx", ".pptx", ".xlsx")
_READABLE_ENDINGS = (".html", ".htm", ".txt", ".md", ".markdown", ".csv", *_FILE_ENDINGS)
_UNTOLD_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PIECE = 64 * 1024
_ACCEPT = (
    ", ".join(("text/html", "application/xhtml+xml", *sorted(READABLE_TYPES - {"text/html", "application/xhtml+xml"}))) + ", */*;q=0.1"
)

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
class _Order:
    """What to fetch, and how."""

    url: str
    limits: _Limits
    gate: Gate | None = None
    sent: Callable[[], None] | None = None
    validators: Validators | None = None


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
        self._crawl = crawl = settings.crawl
        page, document = crawl.page_timeout.total_seconds(), crawl.document_timeout.total_seconds()
        self._pages = _Limits(crawl.max_page_bytes, page)
        self._robots = _Limits(crawl.max_robots_bytes, page, any_type=True, cut=True)
        self._sitemaps = _Limits(crawl.max_sitemap_bytes, document, any_type=True)
        self._documents = _Limits(settings.file.max_bytes, document, too_large=DocumentTooLarge, any_type=True)

    async def fetch(
        self, url: str, *, gate: Gate | None = None, sent: Callable[[], None] | None = None, validators: Validators | None = None
    ) -> Fetched:
        """One page. `sent` is called when its first request is about to leave: from then on the page counts.

        With `validators` the status may be 304: the page at their address is as it was, and its body is not sent.

        Raises:
            ShieldError: `page.*`, `egress.*`, `crawl.url_invalid`, `document.too_large` for a file, or whatever `gate` raised.
        """
        return await self._patiently(_Order(canonical(url), self._pages, gate, sent, validators))

    async def fetch_document(self, url: str) -> Fetched:
        """One document that a person named; robots.txt is not asked.

        Raises:
            ShieldError: as `fetch`, but `document.too_large` above the files' cap.
        """
        return await self._patiently(_Order(canonical(url), self._documents))

    async def fetch_robots(self, url: str) -> Fetched:
        """A robots.txt, cut at its cap, of any type.

        Raises:
            ShieldError: as `fetch`.
        """
        return await self._patiently(_Order(canonical(url), self._robots))

    async def fetch_sitemap(self, url: str, gate: Gate) -> Fetched:
        """A sitemap, of any type.

        Raises:
            ShieldError: as `fetch`.
        """
        return await self._patiently(_Order(canonical(url), self._sitemaps, gate))

    async def _patiently(self, order: _Order) -> Fetched:
        answer = await self._follow(order)
        for _ in range(self._crawl.throttle_retries):
            if isinstance(answer, Fetched) or answer.retry_after > self._crawl.max_retry_after:
                break
            self._politeness.pause(answer.host, answer.retry_after)
            answer = await self._follow(order)
        if isinstance(answer, Fetched):
            return answer
        pause = answer.retry_after.total_seconds()
        raise PageThrottled(f"The site answered {answer.status} and asked to wait {pause:.0f} s.", retry_after=pause, status=answer.status)

    async def _follow(self, order: _Order) -> Fetched | _Throttled:
        """Hop by hop from the address to an answer."""
        hop, seen, left = order.url, {order.url}, order.limits.timeout
        for _ in range(self._crawl.max_redirects + 1):
            delay = await order.gate(hop) if order.gate else None
            target = await self._guard.check(hop)
            async with self._politeness.turn(target.host, delay):
                if order.sent:
                    order.sent()
                started = time.monotonic()
                with http.typed_failures():
                    async with asyncio.timeout(left) as clock:
                        answer = await self._request(order, target, clock)
                left -= time.monotonic() - started
            if not isinstance(answer, _Redirect):
                return answer
            hop = join(hop, answer.location)
            if hop in seen:
                break
            seen.add(hop)
        raise PageRedirectLoop

    async def _request(self, order: _Order, target: Target, clock: asyncio.Timeout) -> Fetched | _Redirect | _Throttled:
        asks = order.validators.headers() if order.validators is not None and order.validators.url == target.url else {}
        async with http.exchange(self._guard, target, {"Accept": _ACCEPT, **asks}) as response:
            kind = http.media_type(response)
            unchanged = response.status == 304 and bool(asks)
            if not unchanged:
                early = self._by_status(response, target.host)
                if early is not None:
                    return early
            limits = self._limits_of(kind, target.url, order.limits, clock)
            if not (limits.any_type or unchanged or _readable(kind, target.url)):
                raise PageTypeUnsupported(f"The page is of type `{kind or 'unknown'}`, which is not read.")
            return Fetched(
                url=order.url,
                final_url=target.url,
                status=response.status,
                content_type=kind,
                charset=http.charset(response),
                body=b"" if unchanged else await _read(response, limits),
                etag=http.etag(response),
                last_modified=http.last_modified(response),
                fetched_at=datetime.now(UTC),
            )

    def _limits_of(self, kind: str, url: str, limits: _Limits, clock: asyncio.Timeout) -> _Limits:
        """A page's limits, or a file's with as much more time as they grant."""
        is_file = kind in FILE_TYPES or (kind in _UNTOLD_TYPES and _path(url).endswith(_FILE_ENDINGS))
        if limits.any_type or not is_file:
            return limits
        if (end := clock.when()) is not None:
            clock.reschedule(end + max(0.0, self._documents.timeout - limits.timeout))
        return self._documents

    def _by_status(self, response: ClientResponse, host: str) -> _Redirect | _Throttled | None:
        status = response.status
        location = response.headers.get("Location")
        if status in _REDIRECTS and location:
            return _Redirect(location)
        retry_after = http.retry_after(response)
        if status == 429 or (status == 503 and retry_after is not None):
            return _Throttled(host, status, self._crawl.default_retry_after if retry_after is None else retry_after)
        if status in {404, 410}:
            raise PageNotFound(http.answered(status), status=status)
        if not 200 <= status < 300:
            raise PageHttpError(http.answered(status), status=status)
        return None


def create_fetcher(settings: Settings) -> Fetcher:
    """The process's fetcher, with its own guard and politeness.

    Raises:
        ConfigInvalid: an entry of SHIELD_EGRESS_ALLOW is not valid.
    """
    return Fetcher(EgressGuard(settings.egress), Politeness(settings.crawl), settings)


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
        return not kind or _path(url).endswith(_READABLE_ENDINGS)
    return kind in READABLE_TYPES


def _path(url: str) -> str:
    return url.split("?", 1)[0].lower()
