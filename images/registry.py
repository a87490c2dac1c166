"""Where images are pushed, and whether they may be."""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Mapping

from images.errors import BuildFailed, NotForPublication
from images.local_base import LOCAL
from images.process import run
from images.settings import ImageSettings


def destinations(settings: ImageSettings) -> tuple[str, ...]:
    """The registry that was named, else that of the running local cluster, else nothing.

    In the cluster's, images lie below `library/` too, where its nodes look for names without a registry: `shield-server:0.2.0` in a manifest works.
    """
    if settings.registry:
        return (settings.registry.rstrip("/"),)
    try:
        status = json.loads(run([sys.executable, "-m", "kind", "status", "--json"], within=settings.query_timeout))
    except (BuildFailed, ValueError):
        return ()  # no cluster: nowhere to push is an answer
    address = status.get("registry") if isinstance(status, dict) else None
    return (address, f"{address}/library") if address else ()


def is_private(registry: str) -> bool:
    """Whether a registry is on this machine or in a private network, by its literal address; a name other than localhost is not."""
    host = registry.partition("/")[0]
    host = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_private
    except ValueError:
        return False


def check_publication(registry: str, labels: Mapping[str, str]) -> None:
    """Pass if an image with these labels may be pushed there.

    Raises:
        NotForPublication: it stands on a base made on this machine, and the registry is not private.
    """
    if LOCAL in labels and not is_private(registry):
        raise NotForPublication(f"This image stands on a base that was made on this machine, and {registry} is not a private address.")
