"""Which Host and Origin headers a server answers to: the defence against DNS rebinding and against web pages of others.

A page of another site can make a browser call a server on loopback. Two headers give it away, and no script can forge
them: `Host` holds the name the page used (rebinding makes a foreign name lead to 127.0.0.1), `Origin` holds the page's own
site. So every request must name a host this server knows, and an origin, when there is one, must be the server itself, a
loopback page of the same port on a loopback server, or listed in the settings. Headers that appear twice or cannot be read
are refused. The decisions here are pure; `shield.api.middleware.HostGuard` applies them to every route.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from shield.errors import ConfigInvalid, HostRefused, OriginRefused
from shield.settings import Settings

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9](?:[a-z0-9_.-]{0,251}[a-z0-9])?))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#@\s]+)", re.ASCII)


@dataclass(frozen=True)
class Authority:
    """A host name or address in its one canonical form, and its port if one was given."""

    host: str
    port: int | None = None

    def at(self, scheme: str) -> Authority:
        """The same with the scheme's default port written out."""
        return self if self.port is not None else Authority(self.host, _DEFAULT_PORTS.get(scheme))


def parse_authority(text: str) -> Authority | None:
    """`host[:port]` in canonical form, or None if it is anything else (user info, spaces, a port above 65535 ...)."""
    match = _AUTHORITY.fullmatch(text.lower())
    if match is None:
        return None
    host, port = match["name"], int(match["port"]) if match["port"] else None
    if match["v6"]:
        try:
            host = ipaddress.IPv6Address(match["v6"]).compressed
        except ValueError:
            return None
    return None if port is not None and not 0 < port <= 65535 else Authority(host, port)


def parse_origin(text: str) -> tuple[str, Authority] | None:
    """(scheme, authority with its port) of an http or https origin, or None for `null` and everything else."""
    match = _ORIGIN.fullmatch(text.lower())
    authority = parse_authority(match["authority"]) if match else None
    return (match["scheme"], authority.at(match["scheme"])) if match and authority else None


@dataclass(frozen=True)
class HostPolicy:
    """What a server answers to; build it with `of`."""

    names: frozenset[Authority]
    """Listed hosts; without a port, any port of that host."""
    origins: frozenset[tuple[str, Authority]]
    """Listed origins, ports written out."""
    own: frozenset[str]
    """Hosts that are served on the server's own port only: loopback, and the address it binds."""

    @classmethod
    def of(cls, settings: Settings) -> HostPolicy:
        """The policy of these settings.

        Raises:
            ConfigInvalid: an allowed host, an allowed origin or the public URL cannot be read.
        """
        names, origins = set(), set()
        for item in settings.allowed_hosts:
            if (name := parse_authority(item)) is None:
                raise ConfigInvalid(f"SHIELD_ALLOWED_HOSTS: `{item}` is not a host name with an optional port.")
            names.add(name)
        for item in settings.allowed_origins:
            if (origin := parse_origin(item.rstrip("/"))) is None:
                raise ConfigInvalid(f"SHIELD_ALLOWED_ORIGINS: `{item}` is not an origin such as https://app.example.com.")
            origins.add(origin)
        if settings.public_url is not None:
            url = urlsplit(settings.public_url)
            if (origin := parse_origin(f"{url.scheme}://{url.netloc}")) is None:
                raise ConfigInvalid("SHIELD_PUBLIC_URL is not an http or https address without credentials.")
            origins.add(origin)
            names.add(Authority(origin[1].host))
        bound = parse_authority(f"[{settings.host}]" if ":" in settings.host else settings.host)
        own = LOOPBACK_NAMES | ({bound.host} if bound and bound.host not in ("0.0.0.0", "::") else set())  # noqa: S104
        return cls(frozenset(names), frozenset(origins), own)

    def check(self, hosts: Sequence[str], origins: Sequence[str], scheme: str, port: int | None) -> None:
        """Pass if a request with these header values may be answered by a server that listens on `port`.

        Raises:
            HostRefused: the Host header is missing, doubled, unreadable or names a host that is not served.
            OriginRefused: the Origin header is doubled, unreadable or names a site that may not call.
        """
        host = parse_authority(hosts[0]) if len(hosts) == 1 else None
        if host is None or not self._serves(host, scheme, port):
            raise HostRefused
        if not origins:
            return
        origin = parse_origin(origins[0]) if len(origins) == 1 else None
        if origin is None or not (origin in self.origins or self._own_page(origin, host, port, scheme)):
            raise OriginRefused

    def _serves(self, host: Authority, scheme: str, port: int | None) -> bool:
        if host in self.names or Authority(host.host) in self.names:
            return True
        return host.host in self.own and host.at(scheme).port == (port or _DEFAULT_PORTS.get(scheme))

    @staticmethod
    def _own_page(origin: tuple[str, Authority], host: Authority, port: int | None, scheme: str) -> bool:
        page_scheme, page = origin
        if page == host.at(page_scheme):  # the page's scheme, because a proxy before us may have ended TLS
            return True
        return page.host in LOOPBACK_NAMES and host.host in LOOPBACK_NAMES and page.port == (port or _DEFAULT_PORTS.get(scheme))
