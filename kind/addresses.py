"""Addresses of a cluster. Clusters side by side differ in their number, and each number has networks of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network

from kind.errors import ClusterInUse

CLUSTERS = 8
"""So many clusters have room side by side."""


@dataclass(frozen=True)
class Addresses:
    """All of them private, and none outside the cluster's own network namespace but `outside`, the host's end of the link."""

    number: int

    @property
    def node(self) -> str:
        """The node: API server, kubelet, registry, DNS."""
        return f"10.250.{self.number}.1"

    @property
    def services(self) -> str:
        """Network of the services."""
        return f"10.{96 + self.number}.0.0/16"

    @property
    def api_service(self) -> str:
        """Service `kubernetes`."""
        return f"10.{96 + self.number}.0.1"

    @property
    def dns_service(self) -> str:
        """Service `kube-dns`."""
        return f"10.{96 + self.number}.0.10"

    @property
    def pods(self) -> str:
        """Network of the pods."""
        return f"10.244.{self.number}.0/24"

    @property
    def outside(self) -> str:
        """The host's end of the link."""
        return f"10.251.{self.number}.1"

    @property
    def inside(self) -> str:
        """The cluster's end of the link."""
        return f"10.251.{self.number}.2"

    @property
    def link(self) -> str:
        """Name of the host's end of the link."""
        return f"shield{self.number}"

    @property
    def registry(self) -> str:
        """Where images are pushed to, and pulled from."""
        return f"{self.node}:5000"

    @property
    def networks(self) -> tuple[IPv4Network, ...]:
        """All that the host must not use for something else."""
        return tuple(IPv4Network(network) for network in (f"{self.node}/32", self.services, self.pods, f"10.251.{self.number}.0/30"))


def choose(used: Iterable[IPv4Network]) -> Addresses:
    """The first addresses that overlap with nothing in use.

    Raises:
        ClusterInUse: all are taken.
    """
    taken = list(used)
    for number in range(CLUSTERS):
        addresses = Addresses(number)
        if not any(mine.overlaps(other) for mine in addresses.networks for other in taken):
            return addresses
    raise ClusterInUse(
        f"all {CLUSTERS} sets of addresses (10.250.N.1, 10.251.N.0/30, 10.244.N.0/24, 10.{96}+N.0.0/16) overlap with this machine's networks",
        "Stop another cluster: python -m kind down --name NAME",
    )


def in_use() -> list[IPv4Network]:
    """Networks of this machine: its addresses and routes, but not the default route."""
    found = []
    for route in json.loads(
        subprocess.run(
            ["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    ):
        destination = route.get("dst", "default")
        if destination != "default":
            network = ip_network(destination, strict=False)
            if isinstance(network, IPv4Network) and network.prefixlen > 0:
                found.append(network)
    return found
