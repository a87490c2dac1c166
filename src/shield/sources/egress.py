"""The egress guard: no address that a caller or a page names leads anywhere but to the public internet.

A name is resolved once; every answer must pass, and the connection is made to exactly these addresses, so a second DNS answer
(rebinding) is never asked for. The socket factory looks at the address once more, right before it is dialled: the second lock
holds even if a pin were wrong. Refused are all addresses that are not publicly routable and every IPv6 form that carries an
IPv4 address (mapped, compatible, NAT64, 6to4, Teredo, ISATAP); `nat64` opens the well-known NAT64 prefix for public IPv4 only.

`allow` entries (`10.1.0.0/16:8080`, `[fd00:1::/64]:443`) open exactly these addresses on exactly that port, `ports` or not.
Refusals say that the address is refused, never what it resolved to or whether anything answers there.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from shield.errors import ConfigInvalid, EgressDenied, EgressPortDenied, PageUnreachable
from shield.settings import EgressSettings
from shield.sources.urls import canonical, origin

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to the texts of all its addresses; raises OSError if there are none."""

_NAT64 = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC_4 = tuple(
    IPv4Network(net)
    for net in (
        "192.0.0.0/24",  # protocol assignments: DS-Lite, a cloud's metadata service
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # a cloud's host agent on a public-looking address
    )
)
_NOT_PUBLIC_6 = tuple(
    IPv6Network(net)
    for net in (
        "2001::/23",  # protocol assignments, Teredo and ORCHID among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation; unknown to older Pythons
    )
)
_ALLOW = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Target:
    """A checked URL and the only addresses that may be dialled for it."""

    url: str
    host: str
    port: int
    addresses: tuple[str, ...]


class Refused(OSError):
    """Raised by the socket factory: the address to be dialled is not allowed."""


class EgressGuard:
    """Checks URLs before, and addresses while, a connection is made.

    Raises:
        ConfigInvalid: an `allow` entry is not `CIDR:port`.
    """

    def __init__(self, settings: EgressSettings, resolve: Resolve | None = None) -> None:
        self._ports = frozenset(settings.ports)
        self._nat64 = settings.nat64
        self._allow = tuple(_parse_allow(entry) for entry in settings.allow)
        self._timeout = settings.resolve_timeout.total_seconds()
        self._resolve = resolve or resolve_by_system

    def routable(self, ip: Address) -> bool:
        """Whether `ip` lies in the public internet and carries no other address inside."""
        if isinstance(ip, IPv4Address):
            return ip.is_global and not (ip.is_multicast or ip.is_reserved) and not any(ip in net for net in _NOT_PUBLIC_4)
        if ip.scope_id is not None:
            return False
        if ip in _NAT64:
            return self._nat64 and self.routable(IPv4Address(int(ip) & 0xFFFFFFFF))
        if ip not in _GLOBAL_UNICAST or not ip.is_global or any(ip in net for net in _NOT_PUBLIC_6):
            return False
        isatap = (int(ip) >> 32) & 0xFCFFFFFF == 0x00005EFE
        return not isatap

    def permits(self, ip: Address, port: int) -> bool:
        """Whether this very address may be dialled on this port."""
        return (port in self._ports and self.routable(ip)) or self._allowed(ip, port)

    async def check(self, url: str) -> Target:
        """Resolve the URL's host once and pin it.

        Raises:
            UrlInvalid: no absolute http or https URL, or one with credentials.
            EgressPortDenied: the port may not be called.
            EgressDenied: one of the host's addresses may not be called.
            PageUnreachable: the name does not resolve.
        """
        url = canonical(url)
        place = origin(url)
        if place.port not in self._ports and not any(port == place.port for _, port in self._allow):
            raise EgressPortDenied(f"Port {place.port} may not be called.", port=place.port)
        addresses = await self._addresses(place.host, place.port)
        for ip in addresses:
            if self.permits(ip, place.port):
                continue
            if self.routable(ip):
                raise EgressPortDenied(f"Port {place.port} may not be called.", port=place.port)
            raise EgressDenied
        return Target(url, place.host, place.port, tuple(str(ip) for ip in addresses))

    def socket_factory(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket for aiohttp's connector, after a last look at the address it is about to dial.

        Raises:
            Refused: the address is not permitted.
        """
        family, kind, proto, _, where = info
        ip = ip_address(str(where[0]))
        zone = int(str(where[3])) if family == socket.AF_INET6 and len(where) > 3 else 0
        if zone or not self.permits(ip, int(str(where[1]))):
            raise Refused("egress denied")
        return socket.socket(family, kind, proto)

    def _allowed(self, ip: Address, port: int) -> bool:
        return any(port == open_port and ip.version == net.version and ip in net for net, open_port in self._allow)

    async def _addresses(self, host: str, port: int) -> list[Address]:
        try:
            return [ip_address(host)]
        except ValueError:
            pass
        if host == "localhost" or host.endswith(".localhost"):
            return [IPv4Address("127.0.0.1")]  # by definition (RFC 6761), whatever a resolver says or does not know
        try:
            async with asyncio.timeout(self._timeout):
                answers = await self._resolve(host, port)
        except (OSError, TimeoutError, UnicodeError) as error:
            raise PageUnreachable("The host's name does not resolve.") from error
        if not answers:
            raise PageUnreachable("The host's name does not resolve.")
        return [ip_address(answer) for answer in dict.fromkeys(answers)]


async def resolve_by_system(host: str, port: int) -> list[str]:
    """All addresses by the system's resolver, in its order.

    Runs in a daemon thread of its own: a name server that does not answer can neither fill the event loop's thread pool nor
    hold up a clean stop.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[str]] = loop.create_future()

    def settle(answer: list[str] | None, error: OSError | UnicodeError | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(answer or [])

    def ask() -> None:
        answer: list[str] | None = None
        failure: OSError | UnicodeError | None = None
        try:
            answer = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(settle, answer, failure)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    return await done


def _parse_allow(entry: str) -> tuple[IPv4Network | IPv6Network, int]:
    match = _ALLOW.fullmatch(entry.strip())
    problem = f"SHIELD_EGRESS_ALLOW: `{entry}` is not CIDR:port, such as 10.1.0.0/16:8080 or [fd00:1::/64]:443."
    if match is None:
        raise ConfigInvalid(problem)
    try:
        net = ip_network(match["v6"] or match["v4"])
    except ValueError as error:
        raise ConfigInvalid(problem) from error
    port = int(match["port"])
    if (net.version == 6) != bool(match["v6"]) or not 0 < port < 65536:
        raise ConfigInvalid(problem)
    return net, port
