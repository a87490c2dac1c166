"""One HTTP exchange with a site: a connection of its own to the pinned addresses, and its failures in our own terms.

No cookies, no proxy from the environment, no reuse; redirects and bodies are the caller's. What a hostile peer's headers say is
kept only in the form that it should have.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog

from shield import __version__
from shield.errors import EgressDenied, PageHttpError, PageTimeout, PageUnreachable, ShieldError
from shield.sources.decompress import BodyBroken
from shield.sources.egress import EgressGuard, Refused, Target

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

USER_AGENT = f"Shield/{__version__} (+https://github.com/hx-citadel/shield)"

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")
_CHARSET = re.compile(r"[a-z0-9._:+-]{1,40}")
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,256}"')


@dataclass(frozen=True)
class Validators:
    """What a site said about a page, to ask it whether that still holds."""

    url: str
    """Where it said so; the final address, should the page redirect."""
    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        """The conditions of a request; empty if there are none."""
        conditions = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in conditions.items() if value}


@contextlib.asynccontextmanager
async def exchange(
    guard: EgressGuard, target: Target, headers: Mapping[str, str], *, post: bytes | None = None
) -> AsyncIterator[ClientResponse]:
    """GET `target`, or POST `post` to it; the answer's body is not read yet, and not decompressed.

    Raises what aiohttp raises: see `typed_failures`.
    """
    import aiohttp
    from yarl import URL

    connector = aiohttp.TCPConnector(
        resolver=_pinned(target), use_dns_cache=False, socket_factory=guard.socket_factory, force_close=True, limit=1
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),  # the caller's asyncio.timeout covers the whole page
            max_line_size=8190,
            max_field_size=8190,
        ) as session,
        _once(session).request(
            "GET" if post is None else "POST",
            URL(target.url, encoded=True),
            data=post,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate", **headers},
            allow_redirects=False,
        ) as response,
    ):
        yield response


@contextlib.contextmanager
def typed_failures() -> Iterator[None]:
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
        if isinstance(error.os_error, ConnectionRefusedError):
            raise PageUnreachable("The site refused the connection.") from error
        raise PageUnreachable("No connection to the site could be made.") from error
    except aiohttp.ClientResponseError as error:
        raise PageHttpError("The site's answer is not valid HTTP.") from error
    except (aiohttp.ClientError, BodyBroken) as error:
        raise PageUnreachable("The site broke off its answer, or it is damaged.") from error
    except OSError as error:
        raise PageUnreachable from error
    except ShieldError:
        raise
    except Exception as error:  # the boundary to a hostile peer: what its bytes make a parser raise is this page's end, not the job's
        structlog.get_logger(__name__).warning("answer could not be parsed", error=type(error).__name__)
        raise PageUnreachable("The site's answer cannot be read.") from error


def answered(status: int) -> str:
    """What a status means, such as: The site answered 403 (Forbidden)."""
    try:
        return f"The site answered {status} ({HTTPStatus(status).phrase})."
    except ValueError:
        return f"The site answered {status}."


def media_type(response: ClientResponse) -> str:
    """The declared type alone, lower case; empty if there is none."""
    return _token(_MEDIA_TYPE, response.content_type) if "Content-Type" in response.headers else ""


def charset(response: ClientResponse) -> str | None:
    """The declared encoding, lower case."""
    return _token(_CHARSET, response.charset or "") or None


def etag(response: ClientResponse) -> str | None:
    """The page's entity tag, as it is sent back."""
    value = response.headers.get("ETag", "").strip()
    return value if _ETAG.fullmatch(value) else None


def last_modified(response: ClientResponse) -> str | None:
    """The page's time, as it is sent back."""
    value = response.headers.get("Last-Modified", "").strip()
    return value if len(value) < 64 and value.isascii() and value.isprintable() and _date(value) else None


def retry_after(response: ClientResponse) -> timedelta | None:
    """How long to wait, told as seconds or as an HTTP date; None if it is not told or makes no sense."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), 10**8))
    when = _date(text)
    return None if when is None else max(timedelta(0), when - datetime.now(UTC))


def _date(text: str) -> datetime | None:
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _token(pattern: re.Pattern[str], value: str) -> str:
    """The value in lower case, or nothing if it is not what it should be: headers are hostile input too."""
    value = value.strip().lower()
    return value if pattern.fullmatch(value) else ""


def _once(session: ClientSession) -> ClientSession:
    """The session, which now sends a request once: by itself it sends one again whose answer was broken off, and tells nobody."""
    session._retry_connection = False  # noqa: SLF001 - aiohttp has no public switch; a test counts the requests
    return session


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
