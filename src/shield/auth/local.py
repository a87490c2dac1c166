"""Identity without credentials: whoever reaches a loopback server is its user.

That is only true as long as nobody else can reach it, so a server in this mode refuses to leave loopback (`binding.py`). A caller
counts as *local*, and may name files by path, only if the server binds loopback, no proxy stands before it, and the connection comes
from loopback.
"""

from __future__ import annotations

import ipaddress

from shield.auth.principal import LOCAL, Principal
from shield.settings import Settings


def is_loopback(host: str) -> bool:
    """Whether this host name or address can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_local_caller(settings: Settings, peer: str | None, *, proxied: bool) -> bool:
    """Whether the request comes from a person or program on this very machine.

    Args:
        settings: of the server.
        peer: address at the other end of the connection.
        proxied: the request carries a header that only proxies add.
    """
    return not proxied and settings.public_url is None and is_loopback(settings.host) and peer is not None and is_loopback(peer)


async def local_principal(_request: object) -> Principal:
    """Everybody is the local user; the seam where other modes look at the request's credential."""
    return LOCAL
