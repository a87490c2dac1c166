"""Canonical URLs: one spelling an address, so that a page has one name and is fetched once.

`canonical(url)` lowers scheme and host, writes international names in ASCII (IDNA 2008 after UTS 46), drops the default port,
the fragment, one trailing dot of the host and an empty query, resolves dot segments, decodes escapes of unreserved characters
and writes the other escapes in capitals. Path case, query and the query's order stay. It is idempotent, and it refuses what
two parsers could read differently: user names and passwords, backslashes, control characters, zone ids, and hosts that end
in a number but are no plain dotted IPv4 (`127.1`, `0x7f000001`, `0177.0.0.1`).

`Scope` says which hosts a crawl may visit. An entry without a port means the scheme's default port or the start page's port;
`*.example.com` and `.example.com` both mean that domain and everything below it; anything else matches exactly. The start
page's own host is always in scope.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import urljoin, urlsplit

from shield.errors import InvalidRequest, UrlInvalid

MAX_URL = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_QUERY_OR_FRAGMENT = re.compile(r"[?#]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH = _UNRESERVED | frozenset(b"!$&'()*+,;=:@/")
_QUERY = _PATH | frozenset(b"?")
_PLAIN = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?]*")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})|(.)", re.DOTALL)


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port: what robots.txt belongs to and what a scope compares."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{authority(self.scheme, self.host, self.port)}"


def canonical(url: str) -> str:
    """The one spelling of an absolute http or https URL.

    Raises:
        UrlInvalid: it is no such URL, holds credentials, is ambiguous, or is longer than `MAX_URL`.
    """
    text = url.strip(" \t\r\n\f")
    if len(text) > 2 * MAX_URL:
        raise UrlInvalid(f"The address is longer than {MAX_URL:,} characters.")
    if _CONTROL.search(text) or "\\" in _QUERY_OR_FRAGMENT.split(text, 1)[0]:
        raise UrlInvalid("The address holds control characters or backslashes.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UrlInvalid from error
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS or not text[len(scheme) :].startswith("://"):
        raise UrlInvalid("The address does not start with http:// or https://.")
    if "@" in parts.netloc:
        raise UrlInvalid("The address holds a user name or password.")
    if port == 0:
        raise UrlInvalid("The address has no valid port.")
    host = _host(parts.netloc, parts.hostname or "")
    head = f"{scheme}://{authority(scheme, host, port or DEFAULT_PORTS[scheme])}"
    path = _resolve_dots(_escape(parts.path, _PATH)) or "/"
    query = f"?{_escape(parts.query, _QUERY)}" if parts.query else ""
    result = head + path + query
    if len(result) > MAX_URL:
        raise UrlInvalid(f"The address is longer than {MAX_URL:,} characters.")
    return result


def join(base: str, reference: str) -> str:
    """The canonical URL of a link or Location header found at `base`.

    Raises:
        UrlInvalid: as `canonical`.
    """
    try:
        return canonical(urljoin(base, reference.strip(" \t\r\n\f")))
    except ValueError as error:  # urljoin on broken brackets
        raise UrlInvalid from error


def escaped(text: str) -> str:
    """A piece of a path or query, escaped as `canonical` escapes it.

    Raises:
        UrlInvalid: it is no Unicode text.
    """
    return _escape(text, _QUERY)


def origin(url: str) -> Origin:
    """The origin of a canonical URL."""
    parts = urlsplit(url)
    return Origin(parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])


def authority(scheme: str, host: str, port: int) -> str:
    """`host`, `host:port` or `[v6]:port`, without the scheme's default port."""
    name = f"[{host}]" if ":" in host else host
    return name if DEFAULT_PORTS[scheme] == port else f"{name}:{port}"


def _host(netloc: str, raw: str) -> str:
    if "[" in netloc:
        if "%" in raw:
            raise UrlInvalid("The address holds an IPv6 zone id.")
        try:
            return IPv6Address(raw).compressed
        except ValueError as error:
            raise UrlInvalid from error
    host = _to_ascii(raw).removesuffix(".")
    if _ENDS_IN_NUMBER.search(host):
        try:
            return str(ip_address(host))
        except ValueError as error:
            raise UrlInvalid("The host is a number, but not a plain IPv4 address.") from error
    if not host or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise UrlInvalid("The address has no valid host name.")
    return host


def _to_ascii(raw: str) -> str:
    if raw.isascii():
        return raw.lower()
    import idna

    try:
        return idna.encode(raw, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise UrlInvalid("The address has no valid host name.") from error


def _escape(text: str, safe: frozenset[int]) -> str:
    if _PLAIN.fullmatch(text):
        return text
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UrlInvalid from error

    def one(match: re.Match[bytes]) -> bytes:
        if match[1]:
            byte = int(match[1], 16)
            return bytes([byte]) if byte in _UNRESERVED else b"%%%02X" % byte
        byte = match[2][0]
        return match[2] if byte in safe else b"%%%02X" % byte

    return _ESCAPE.sub(one, raw).decode("ascii")


def _resolve_dots(path: str) -> str:
    """RFC 3986 5.2.4 for an absolute path; empty segments stay."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


@dataclass(frozen=True)
class Scope:
    """The hosts one crawl may visit; build it with `Scope.of`."""

    start: Origin
    exact: frozenset[tuple[str, int | None]]
    below: frozenset[tuple[str, int | None]]

    @classmethod
    def of(cls, start_url: str, allowed_domains: Iterable[str] = ()) -> Scope:
        """The scope of a crawl that begins at `start_url`.

        Raises:
            UrlInvalid: the start address is not valid.
            InvalidRequest: an entry of `allowed_domains` is no host name.
        """
        start = origin(canonical(start_url))
        exact: set[tuple[str, int | None]] = {(start.host, None)}
        below: set[tuple[str, int | None]] = set()
        for entry in allowed_domains:
            name = entry.strip()
            wild = name.startswith(("*.", "."))
            try:
                parts = urlsplit(f"//{name.removeprefix('*').removeprefix('.')}")
                extra = parts.path or parts.query or parts.fragment or "@" in parts.netloc or _CONTROL.search(name)
                item = (_host(parts.netloc, parts.hostname or ""), parts.port)
            except (ValueError, UrlInvalid) as error:
                raise InvalidRequest(_BAD_DOMAIN, field="allowed_domains") from error
            if extra:
                raise InvalidRequest(_BAD_DOMAIN, field="allowed_domains")
            (below if wild else exact).add(item)
        return cls(start, frozenset(exact), frozenset(below))

    def __contains__(self, url: str) -> bool:
        """Whether the canonical `url` may be visited."""
        place = origin(url)
        usual = place.port in {DEFAULT_PORTS[place.scheme], self.start.port}
        ports: tuple[int | None, ...] = (place.port, None) if usual else (place.port,)
        return any((place.host, port) in self.exact for port in ports) or any(
            (name, port) in self.below for port in ports for name in _parents(place.host)
        )


_BAD_DOMAIN = "allowed_domains holds an entry that is no host, host:port, *.domain or .domain."


def _parents(host: str) -> list[str]:
    labels = host.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))]
