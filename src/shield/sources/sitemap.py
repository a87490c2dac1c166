"""Sitemaps: what a site itself lists as its pages, as further starting points of a crawl.

Asked for are the addresses that a caller names and, for `auto`, the `Sitemap:` lines of the start page's robots.txt and
`/sitemap.xml`. An index leads to its sitemaps, no further. Files are plain or gzipped XML, or text with an address a line; XML
is read as a stream by expat with every DOCTYPE refused, so there are no entities to expand. Every request passes the crawl's
gate (scope, robots.txt) and the egress guard; none counts to `max_pages`.

The addresses come in the order of the files, each once. A sitemap that cannot be read is told with its reason, but that our own
guess `/sitemap.xml` is not there, or is no sitemap, is nothing to tell.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from xml.parsers import expat

from shield.errors import PageHttpError, PageNotFound, PageTooLarge, RobotsDenied, ShieldError, SitemapInvalid, UrlInvalid, blames_content
from shield.settings import CrawlSettings
from shield.sources.decompress import BodyBroken, BodyTooLarge, Zlib
from shield.sources.fetch import Fetched, Gate
from shield.sources.urls import MAX_URL, canonical, join, origin

AUTO = "auto"
_GZIP = b"\x1f\x8b"
_PIECE = 256 * 1024
_OWNERS = frozenset({"url", "sitemap"})


class SitemapFetcher(Protocol):
    """What of the fetcher this module needs."""

    async def fetch_sitemap(self, url: str, gate: Gate) -> Fetched:
        """The file at `url`, of any type."""


class SitemapFinder(Protocol):
    """What of robots.txt this module needs."""

    async def sitemaps(self, url: str) -> Sequence[str]:
        """The `Sitemap:` lines of the robots.txt that `url` belongs to."""


@dataclass
class Seeds:
    """What sitemaps gave."""

    urls: dict[str, None] = field(default_factory=dict)
    """Canonical, in their order."""
    failures: dict[str, ShieldError] = field(default_factory=dict)
    """Sitemaps that could not be read, by address."""
    cut: bool = False
    """A limit was reached: there are more."""


@dataclass(frozen=True)
class Listing:
    """What one file lists, as it stands there."""

    pages: tuple[str, ...] = ()
    sitemaps: tuple[str, ...] = ()
    cut: bool = False


@dataclass(frozen=True)
class _Wanted:
    url: str
    guessed: bool = False
    from_index: bool = False


class Sitemaps:
    """Reads the sitemaps of one crawl."""

    def __init__(
        self,
        fetcher: SitemapFetcher,
        finder: SitemapFinder,
        settings: CrawlSettings,
        *,
        gate: Gate,
        in_scope: Callable[[str], bool],
        checkpoint: Callable[[], Awaitable[None]],
    ) -> None:
        """Make a reader.

        Args:
            fetcher: fetches a file.
            finder: knows robots.txt.
            settings: limits.
            gate: asked before each hop of each request.
            in_scope: whether the crawl may visit an address at all.
            checkpoint: called before each request; may raise to stop.
        """
        self._fetcher = fetcher
        self._finder = finder
        self._settings = settings
        self._gate = gate
        self._in_scope = in_scope
        self._checkpoint = checkpoint

    async def read(self, named: Sequence[str], start: str, *, wanted: Callable[[str], bool], most: int) -> Seeds:
        """The pages of the sitemaps at `named` (`auto`, or addresses), those of them that are `wanted`, at most `most`.

        Raises:
            ShieldError: what `checkpoint` raised, or trouble that is not a sitemap's.
        """
        seeds = Seeds()
        queue = deque(await self._named(named, start))
        asked: set[str] = set()
        while queue:
            file = queue.popleft()
            if file.url in asked or not self._in_scope(file.url):
                continue
            if len(asked) == self._settings.max_sitemaps or len(seeds.urls) == most:
                seeds.cut = True
                break
            asked.add(file.url)
            await self._checkpoint()
            try:
                listing = await self._listing(file)
            except ShieldError as error:
                if not blames_content(error):
                    raise
                if not (file.guessed and _absent(error)):
                    seeds.failures[file.url] = error
                continue
            queue.extendleft(_Wanted(url, from_index=True) for url in reversed(_canonical(listing.sitemaps, file.url)))
            await asyncio.to_thread(_add, seeds, listing, file.url, wanted, most)
        return seeds

    async def _named(self, named: Sequence[str], start: str) -> list[_Wanted]:
        files: list[_Wanted] = []
        for name in named:
            if name == AUTO:
                lines = await self._finder.sitemaps(start)
                files += [_Wanted(url) for url in _canonical(lines, start)]
                files.append(_Wanted(f"{origin(start)}/sitemap.xml", guessed=True))
            else:
                files.append(_Wanted(canonical(name)))
        return files

    async def _listing(self, file: _Wanted) -> Listing:
        fetched = await self._fetcher.fetch_sitemap(file.url, self._gate)
        settings = self._settings
        listing = await asyncio.to_thread(parse, fetched.body, most=settings.max_sitemap_urls, cap=settings.max_sitemap_bytes)
        if file.from_index and listing.sitemaps:
            raise SitemapInvalid("An index of sitemaps names another index.")
        return listing


def parse(body: bytes, *, most: int, cap: int) -> Listing:
    """What a sitemap lists, at most `most` addresses.

    Raises:
        SitemapInvalid: it is none, or has a DOCTYPE.
        PageTooLarge: it unpacks to more than `cap` bytes.
    """
    if body.startswith(_GZIP):
        body = _unpacked(body, cap)
    text = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"<", b"\xff\xfe", b"\xfe\xff")):
        return _Reader(most).read(text)
    lines = text.split(b"\n", most + 1)
    found = tuple(line.decode("utf-8", "replace").strip() for line in lines[:most] if len(line) <= 2 * MAX_URL)
    if not any(line.startswith(("http://", "https://")) for line in found):
        raise SitemapInvalid
    return Listing(pages=tuple(line for line in found if line), cut=len(lines) > most and bool(lines[most].strip()))


class _Reader:
    """expat's events into a listing: only `loc` directly below `url` or `sitemap` counts, an image's does not."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[str, list[str]] = {"url": [], "sitemap": []}
        self._path: list[str] = []
        self._text: list[str] | None = None
        self._length = 0
        self._cut = False

    def read(self, body: bytes) -> Listing:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            for at in range(0, len(body), _PIECE):
                parser.Parse(body[at : at + _PIECE], False)
                if self._cut:
                    break
            else:
                parser.Parse(b"", True)
        except (expat.ExpatError, ValueError, LookupError) as error:  # broken, or in an encoding that nobody knows
            raise SitemapInvalid from error
        return Listing(tuple(self._found["url"]), tuple(self._found["sitemap"]), self._cut)

    def _start(self, name: str, _: dict[str, str]) -> None:
        if not self._path and name.rpartition(":")[2] not in {"urlset", "sitemapindex"}:
            raise SitemapInvalid
        self._path.append(name.rpartition(":")[2])
        if len(self._path) > 16:
            raise SitemapInvalid
        is_location = len(self._path) == 3 and self._path[-1] == "loc" and self._path[-2] in _OWNERS
        self._text, self._length = ([] if is_location else None), 0

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._length += len(text)
            if self._length <= 2 * MAX_URL:
                self._text.append(text)

    def _end(self, _: str) -> None:
        if self._text is not None and self._length <= 2 * MAX_URL:
            found = self._found[self._path[-2]]
            if len(found) == self._most:
                self._cut = True
            else:
                found.append("".join(self._text).strip())
        self._text = None
        self._path.pop()

    def _doctype(self, *_: object) -> None:
        raise SitemapInvalid("The sitemap has a DOCTYPE, which is refused.")


def _unpacked(body: bytes, cap: int) -> bytes:
    unpacker = Zlib(cap, gzip=True)
    try:
        for at in range(0, len(body), _PIECE):
            unpacker.feed(body[at : at + _PIECE])
        return unpacker.finish()
    except BodyTooLarge as error:
        raise PageTooLarge("The sitemap is larger than allowed.") from error
    except BodyBroken as error:
        raise SitemapInvalid from error


def _canonical(links: Sequence[str], base: str) -> list[str]:
    found: dict[str, None] = {}
    for link in links:
        try:
            found[join(base, link)] = None
        except UrlInvalid:
            continue
    return list(found)


def _add(seeds: Seeds, listing: Listing, base: str, wanted: Callable[[str], bool], most: int) -> None:
    seeds.cut |= listing.cut
    for url in _canonical(listing.pages, base):
        if url in seeds.urls or not wanted(url):
            continue
        if len(seeds.urls) == most:
            seeds.cut = True
            return
        seeds.urls[url] = None


def _absent(error: ShieldError) -> bool:
    """Whether a sitemap that we only guessed is simply not there; servers have many ways to say so."""
    refused = isinstance(error, PageHttpError) and 400 <= int(error.details.get("status") or 0) < 500
    return refused or isinstance(error, PageNotFound | SitemapInvalid | RobotsDenied)
