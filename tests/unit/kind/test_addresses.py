"""Clusters side by side never share an address, and none takes one that the machine uses."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import combinations

import pytest

from kind.addresses import CLUSTERS, Addresses, choose
from kind.errors import ClusterInUse


def test_no_two_clusters_overlap() -> None:
    for one, other in combinations(map(Addresses, range(CLUSTERS)), 2):
        assert not any(a.overlaps(b) for a in one.networks for b in other.networks)
        assert one.link != other.link


def test_all_addresses_lie_in_the_clusters_networks() -> None:
    for number in range(CLUSTERS):
        found = Addresses(number)
        for address in (found.node, found.api_service, found.dns_service, found.outside, found.inside):
            assert any(IPv4Network(f"{address}/32").subnet_of(network) for network in found.networks)
        assert len(found.link) <= 15, "the kernel's limit"


def test_an_idle_machine_gives_the_first() -> None:
    assert choose([IPv4Network("192.168.1.0/24"), IPv4Network("127.0.0.0/8")]).number == 0


def test_taken_networks_are_passed_over() -> None:
    assert choose([IPv4Network("10.96.0.0/16"), IPv4Network("10.250.1.0/24")]).number == 2


def test_a_machine_that_uses_all_of_them_is_refused() -> None:
    with pytest.raises(ClusterInUse, match="overlap"):
        choose([IPv4Network("10.0.0.0/8")])
