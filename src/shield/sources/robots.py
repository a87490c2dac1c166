"""robots.txt as RFC 9309 wants it, read through the same guarded fetcher as every page.

One file an origin, remembered for `robots_ttl`. 4xx (and more redirects than a page may have) means: everything is allowed.
5xx, time-outs and broken answers mean: nothing is, remembered only for `robots_retry`. A host that cannot be reached or may not
be called gives that error itself, because its pages would give the same. At most `max_robots_bytes` are read, what follows is
ignored. Rules are matched by Protego, whose wildcards take linear time, with the token `shield`.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from shield.errors import (
    EgressDenied,
    EgressPortDenied,
    PageHttpError,
    PageNotFound,
    PageRedirectLoop,
    PageThrottled,
    PageUnreachable,
    RobotsDelayTooLong,
    RobotsDenied,
    RobotsUnavailable,
    ShieldError,
)
from shield.settings import CrawlSettings
from shield.sources.fetch import Fetched
from shield.sources.politeness import Clock, SystemClock
from shield.sources.urls import Origin, origin

_MAX_ORIGINS = 1000


class RobotsFetcher(Protocol):
    """What of the fetcher this module needs."""

    async def fetch_robots(self, url: str) -> Fetched:
        """The file at `url`, cut at its cap."""


@dataclass
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    until: float = -math.inf
    rules: Any = None
    """A Protego; None allows everything."""
    error: ShieldError | None = None


class Robots:
    """The rules of all origins this process meets; one a process."""

    def __init__(self, fetcher: RobotsFetcher, settings: CrawlSettings, clock: Clock | None = None) -> None:
        self._fetcher = fetcher
        self._settings = settings
        self._clock = clock or SystemClock()
        self._entries: dict[Origin, _Entry] = {}

    async def admit(self, url: str, accept_delay: timedelta | None = None) -> timedelta | None:
        """Let the canonical `url` pass, and say what pause its site asks for.

        Args:
            url: the page about to be requested.
            accept_delay: the longest pause this job accepts; default `max_crawl_delay`.

        Raises:
            RobotsDenied: the rules exclude the page.
            RobotsDelayTooLong: the site asks for a longer pause than accepted.
            RobotsUnavailable: the rules could not be read.
            ShieldError: `page.unreachable` or `egress.*`, which hold for the page as well.
        """
        entry = await self._entry(origin(url))
        if entry.error is not None:
            raise type(entry.error)(entry.error.message, retry_after=entry.error.retry_after, **entry.error.details)
        if entry.rules is None:
            return None
        token = self._settings.user_agent_token
        if not entry.rules.can_fetch(url, token):
            raise RobotsDenied
        asked = entry.rules.crawl_delay(token)
        if asked is None or not asked > 0:
            return None
        limit = (accept_delay if accept_delay is not None else self._settings.max_crawl_delay).total_seconds()
        if asked > limit:
            raise RobotsDelayTooLong(f"The site asks for {min(asked, 10**9):g} s between pages; this job accepts {limit:g} s.")
        return timedelta(seconds=asked)

    async def sitemaps(self, url: str) -> tuple[str, ...]:
        """The `Sitemap:` lines of the robots.txt of the canonical `url`'s site, as they stand there; none if it cannot be read."""
        entry = await self._entry(origin(url))
        return tuple(entry.rules.sitemaps) if entry.rules is not None else ()

    async def _entry(self, place: Origin) -> _Entry:
        self._forget()
        entry = self._entries.setdefault(place, _Entry())
        async with entry.lock:  # one request an origin, however many pages wait for it
            if entry.until <= self._clock.now():
                await self._load(place, entry)
        return entry

    async def _load(self, place: Origin, entry: _Entry) -> None:
        entry.rules, entry.error = None, None
        keep = self._settings.robots_ttl
        try:
            fetched = await self._fetcher.fetch_robots(f"{place}/robots.txt")
        except (PageNotFound, PageRedirectLoop):
            pass
        except (PageHttpError, PageThrottled) as error:
            if not 400 <= int(error.details.get("status", 500)) < 500:
                entry.error, keep = RobotsUnavailable(), self._settings.robots_retry
        except (EgressDenied, EgressPortDenied, PageUnreachable) as error:
            entry.error, keep = error, self._settings.robots_retry
        except ShieldError:  # a time-out, a redirect to nowhere: the file exists somewhere, and we do not know what it says
            entry.error, keep = RobotsUnavailable(), self._settings.robots_retry
        else:
            entry.rules = await asyncio.to_thread(_parse, fetched.body)
        entry.until = self._clock.now() + keep.total_seconds()

    def _forget(self) -> None:
        if len(self._entries) > _MAX_ORIGINS:
            now = self._clock.now()
            self._entries = {place: entry for place, entry in self._entries.items() if entry.lock.locked() or entry.until > now}


def _parse(body: bytes) -> Any:
    from protego import Protego

    return Protego.parse(body.decode("utf-8-sig", errors="replace"))
