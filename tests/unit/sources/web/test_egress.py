"""The egress guard: what may be dialled, and that nothing else is."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.errors import ConfigInvalid, EgressDenied, EgressPortDenied, PageUnreachable, ShieldError, UrlInvalid
from shield.settings import EgressSettings
from shield.sources.egress import EgressGuard, Refused, resolve_by_system

V4 = st.ip_addresses(v=4)
PUBLIC_4, PUBLIC_6 = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


def guard(*answers: str, **settings: object) -> EgressGuard:
    async def resolve(host: str, port: int) -> list[str]:
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return list(answers)

    return EgressGuard(EgressSettings.model_validate(settings), resolve)


def carriers(v4: IPv4Address) -> list[IPv6Address]:
    """Every known way to write an IPv4 address inside an IPv6 one."""
    low, mid = int(v4), int(v4) << 80
    return [
        IPv6Address(low),  # compatible
        IPv6Address(0xFFFF << 32 | low),  # mapped
        IPv6Address(0xFFFF << 48 | low),  # translated
        IPv6Address(0x0064FF9B << 96 | low),  # NAT64
        IPv6Address(0x0064FF9B0001 << 80 | low),  # local NAT64
        IPv6Address(0x2002 << 112 | mid),  # 6to4
        IPv6Address(0x20010000 << 96 | (low ^ 0xFFFFFFFF)),  # Teredo client
        IPv6Address(0x20010000 << 96 | low << 64),  # Teredo server
        IPv6Address(0x2606280002200001 << 64 | 0x00005EFE << 32 | low),  # ISATAP
        IPv6Address(0x2606280002200001 << 64 | 0x02005EFE << 32 | low),  # ISATAP, universal bit
    ]


@given(V4)
def test_an_ipv6_address_that_carries_an_ipv4_one_is_never_dialled(v4: IPv4Address) -> None:
    one = guard()
    assert [ip for ip in carriers(v4) if one.routable(ip)] == []


@given(V4)
def test_nat64_opens_exactly_the_public_ipv4_addresses(v4: IPv4Address) -> None:
    one = guard(nat64=True)
    opened = [ip for ip in carriers(v4) if one.routable(ip)]
    assert opened == ([IPv6Address(0x0064FF9B << 96 | int(v4))] if one.routable(v4) else [])


@given(V4)
def test_no_private_ipv4_address_is_routable(v4: IPv4Address) -> None:
    if v4.is_private or v4.is_loopback or v4.is_link_local or v4.is_multicast or v4.is_reserved or v4.is_unspecified:
        assert not guard().routable(v4)


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_outside_global_unicast_is_routable(v6: IPv6Address) -> None:
    if int(v6) >> 125 != 0b001:
        assert not guard().routable(v6)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "100::1",
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "2606:4700::1%2",
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not guard().routable(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", PUBLIC_4, PUBLIC_6, "2001:4860:4860::8888", "2a00:1450:4001:81c::200e"])
def test_public_addresses_pass(address: str) -> None:
    assert guard().routable(ip_address(address))


HOSTILE = [
    "http://127.0.0.1/",
    "http://localhost/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25lo]/",
    "http://[fd00:ec2::254]/",
    "http://[3fff::1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://192.0.0.192/",
    "http://100.100.100.200/",
    "http://10.0.0.1/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://user@93.184.215.14/",
    "http://93.184.215.14:22/",
    "http://93.184.215.14:6379/",
    "file:///etc/passwd",
    "gopher://x/",
    "http://\uff11\uff12\uff17.0.0.1/",
    "http://127。0。0。1/",
    "ftp://93.184.215.14/",
    "http://93.184.215.14:80@127.0.0.1/",
    "http://93.184.215.14\\@127.0.0.1/",
]


@pytest.mark.parametrize("url", HOSTILE)
async def test_a_hostile_url_never_becomes_a_target(url: str) -> None:
    one = EgressGuard(EgressSettings())  # with the system's resolver
    with pytest.raises((EgressDenied, EgressPortDenied, UrlInvalid)):
        await one.check(url)


async def test_a_public_name_is_pinned_to_all_its_addresses() -> None:
    target = await guard(PUBLIC_4, PUBLIC_6, PUBLIC_4).check("https://Example.com/x#y")
    assert (target.url, target.host, target.port) == ("https://example.com/x", "example.com", 443)
    assert target.addresses == (PUBLIC_4, str(IPv6Address(PUBLIC_6)))


@pytest.mark.parametrize("bad", ["127.0.0.1", "fe80::1%eth0", "::ffff:8.8.8.8", "10.0.0.1"])
async def test_one_bad_answer_among_good_ones_refuses_the_name(bad: str) -> None:
    with pytest.raises(EgressDenied) as caught:
        await guard(PUBLIC_4, bad).check("http://example.com/")
    assert bad not in caught.value.message


async def test_a_name_is_resolved_once_a_check() -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return [PUBLIC_4] if len(asked) == 1 else ["127.0.0.1"]

    one = EgressGuard(EgressSettings(), rebinding)
    assert (await one.check("http://rebind.example/")).addresses == (PUBLIC_4,)
    assert asked == ["rebind.example"]
    with pytest.raises(EgressDenied):
        await one.check("http://rebind.example/")


@pytest.mark.parametrize("answers", [(), ("",)])
async def test_a_name_without_addresses_is_unreachable(answers: tuple[str, ...]) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        if answers:
            return []
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    with pytest.raises(PageUnreachable, match="does not resolve"):
        await EgressGuard(EgressSettings(), resolve).check("http://nowhere.example/")


async def test_a_resolver_that_never_answers_is_given_up() -> None:
    import asyncio

    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(PageUnreachable):
        await EgressGuard(EgressSettings.model_validate({"resolve_timeout": 0.01}), never).check("http://slow.example/")


async def test_the_systems_resolver_answers_and_fails_like_getaddrinfo() -> None:
    assert await resolve_by_system("127.0.0.1", 80) == ["127.0.0.1"]
    with pytest.raises(OSError, match=r".+"):
        await resolve_by_system("name.invalid", 80)


class TestPortsAndAllowList:
    async def test_other_ports_are_refused_before_anything_is_resolved(self) -> None:
        with pytest.raises(EgressPortDenied):
            await guard().check("http://example.com:8080/")

    async def test_an_operator_may_open_more_ports(self) -> None:
        assert (await guard(PUBLIC_4, ports=(80, 8080)).check("http://example.com:8080/")).port == 8080

    async def test_an_entry_opens_exactly_its_addresses_on_its_port(self) -> None:
        one = guard("10.1.2.3", allow=("10.1.0.0/16:8080",))
        assert (await one.check("http://inside.example:8080/")).addresses == ("10.1.2.3",)
        with pytest.raises(EgressDenied):
            await one.check("http://inside.example/")
        with pytest.raises(EgressDenied):
            await guard("10.2.0.1", allow=("10.1.0.0/16:8080",)).check("http://inside.example:8080/")

    async def test_an_open_private_port_is_not_open_for_public_addresses(self) -> None:
        with pytest.raises(EgressPortDenied):
            await guard(PUBLIC_4, allow=("10.1.0.0/16:8080",)).check("http://example.com:8080/")

    async def test_ipv6_entries_are_written_in_brackets(self) -> None:
        one = guard("fd00:1::5", allow=("[fd00:1::/64]:443",))
        assert (await one.check("https://inside.example/")).addresses == ("fd00:1::5",)

    async def test_an_ipv4_entry_does_not_open_the_mapped_form(self) -> None:
        with pytest.raises(EgressDenied):
            await guard("::ffff:10.1.2.3", allow=("10.1.0.0/16:80",)).check("http://inside.example/")

    @pytest.mark.parametrize(
        "entry",
        [
            "10.0.0.0/8",
            "10.0.0.0/8:0",
            "10.0.0.0/8:65536",
            "10.0.0.1/8:80",
            "fd00::/8:443",
            "[10.0.0.0/8]:80",
            "host:80",
            "[fd00::1",
            "x",
            "*:80",
        ],
    )
    def test_a_wrong_entry_is_named_at_start(self, entry: str) -> None:
        with pytest.raises(ConfigInvalid, match="SHIELD_EGRESS_ALLOW"):
            EgressGuard(EgressSettings(allow=(entry,)))


class TestSecondLock:
    @pytest.mark.parametrize(
        "where", [("127.0.0.1", 80), ("93.184.215.14", 22), ("::1", 80, 0, 0), ("fe80::1", 80, 0, 2), (PUBLIC_6, 80, 0, 2)]
    )
    def test_the_socket_factory_refuses_what_is_about_to_be_dialled(self, where: tuple[object, ...]) -> None:
        family = socket.AF_INET if len(where) == 2 else socket.AF_INET6
        with pytest.raises(Refused):
            guard().socket_factory((family, socket.SOCK_STREAM, 0, "", where))

    def test_and_gives_a_socket_for_what_is_permitted(self) -> None:
        guard().socket_factory((socket.AF_INET, socket.SOCK_STREAM, 0, "", (PUBLIC_4, 443))).close()


@given(st.text(max_size=30), st.sampled_from(["http://{}/", "http://{}:80/", "http://[{}]/", "http://x@{}/", "http://8.8.8.8{}"]))
async def test_whatever_the_host_the_guard_answers_with_a_typed_error_or_a_permitted_target(text: str, form: str) -> None:
    one = guard("127.0.0.1")
    try:
        target = await one.check(form.format(text))
    except ShieldError:
        return
    assert all(one.permits(ip_address(address), target.port) for address in target.addresses)
