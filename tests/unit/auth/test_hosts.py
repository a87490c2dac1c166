"""Host and Origin: what is served, what is refused, and nothing that can be forged by a web page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.auth.hosts import Authority, HostPolicy, parse_authority, parse_origin
from shield.errors import ConfigInvalid, HostRefused, OriginRefused
from shield.settings import load

LOCAL = HostPolicy.of(load())
PUBLIC = HostPolicy.of(
    load(public_url="https://shield.example.org/", allowed_hosts="svc.ns:8443,plain.example", allowed_origins="https://app.example.org")
)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000", "[0:0:0:0:0:0:0:1]:8000"])
def test_a_loopback_name_with_the_servers_port_is_served(host: str) -> None:
    LOCAL.check([host], [], "http", 8000)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000", "localhost", "localhost:9000", "127.0.0.1", "127.0.0.2:8000", "localhost.:8000", "localhost.evil.example:8000",
        "127.0.0.1:8000@evil.example", "evil.example@127.0.0.1:8000", "127.0.0.1:8000/", "127.0.0.1:8000 ", "", "127.0.0.1:", "127.0.0.1:0",
        "127.0.0.1:99999", "[::1", "[::ffff:127.0.0.1]:8000", "0x7f000001:8000", "2130706433:8000", "127.1:8000", "\uff11\uff12\uff17.0.0.1:8000", "a,127.0.0.1:8000",
    ],
)  # fmt: skip
def test_every_other_host_is_refused(host: str) -> None:
    with pytest.raises(HostRefused):
        LOCAL.check([host], [], "http", 8000)


@pytest.mark.parametrize("hosts", [[], ["127.0.0.1:8000", "127.0.0.1:8000"], ["127.0.0.1:8000", "evil.example"]])
def test_a_missing_or_doubled_host_is_refused(hosts: list[str]) -> None:
    with pytest.raises(HostRefused):
        LOCAL.check(hosts, [], "http", 8000)


def test_a_default_port_need_not_be_named() -> None:
    LOCAL.check(["localhost"], ["http://localhost"], "http", 80)
    LOCAL.check(["localhost"], [], "http", None)
    LOCAL.check(["localhost:443"], [], "https", 443)


@pytest.mark.parametrize("host", ["svc.ns:8443", "plain.example", "plain.example:1234", "shield.example.org", "shield.example.org:443"])
def test_listed_hosts_and_the_public_url_are_served(host: str) -> None:
    PUBLIC.check([host], [], "http", 8000)


def test_a_listed_host_with_a_port_is_served_on_that_port_only() -> None:
    with pytest.raises(HostRefused):
        PUBLIC.check(["svc.ns:8000"], [], "http", 8000)


def test_the_address_it_binds_is_served_but_a_wildcard_is_no_name() -> None:
    HostPolicy.of(load(host="192.0.2.7")).check(["192.0.2.7:8000"], [], "http", 8000)
    HostPolicy.of(load(host="fd00::7")).check(["[fd00::7]:8000"], [], "http", 8000)
    with pytest.raises(HostRefused):
        HostPolicy.of(load(host="0.0.0.0")).check(["0.0.0.0:8000"], [], "http", 8000)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000", "HTTP://LOCALHOST:8000"])
def test_an_own_page_may_call(origin: str) -> None:
    LOCAL.check(["127.0.0.1:8000"], [origin], "http", 8000)


@pytest.mark.parametrize(
    "origins",
    [
        ["null"], ["http://evil.example"], ["http://127.0.0.1:8001"], ["http://127.0.0.1"], ["http://127.0.0.1:8000/"], ["file://"], [""],
        ["ftp://127.0.0.1:8000"], ["http://127.0.0.1:8000 http://evil.example"], ["http://u@127.0.0.1:8000"],
        ["http://127.0.0.1:8000", "http://evil.example"], ["http://127.0.0.1:8000", "http://127.0.0.1:8000"], ["chrome-extension://abc"],
    ],
)  # fmt: skip
def test_every_other_origin_is_refused(origins: list[str]) -> None:
    with pytest.raises(OriginRefused):
        LOCAL.check(["127.0.0.1:8000"], origins, "http", 8000)


def test_a_proxied_page_of_the_same_name_and_listed_origins_may_call() -> None:
    for origin in ("https://shield.example.org", "https://app.example.org"):
        PUBLIC.check(["shield.example.org"], [origin], "http", 8000)
    PUBLIC.check(["plain.example"], ["https://plain.example"], "http", 8000)  # TLS ended at a proxy


def test_a_page_on_somebodys_loopback_may_not_call_a_server_elsewhere() -> None:
    with pytest.raises(OriginRefused):
        PUBLIC.check(["plain.example:8000"], ["http://localhost:8000"], "http", 8000)


@pytest.mark.parametrize(
    "setting",
    [
        {"allowed_hosts": "http://a.example"},
        {"allowed_hosts": "*"},
        {"allowed_origins": "app.example"},
        {"public_url": "https://u:p@a.example"},
    ],
)
def test_a_setting_that_cannot_be_read_is_refused_at_start(setting: dict[str, str]) -> None:
    with pytest.raises(ConfigInvalid):
        HostPolicy.of(load(**setting))


@given(st.text(max_size=40))
def test_whatever_is_read_as_an_authority_reads_the_same_again(text: str) -> None:
    authority = parse_authority(text)
    if authority is not None:
        host = f"[{authority.host}]" if ":" in authority.host else authority.host
        assert parse_authority(host + (f":{authority.port}" if authority.port else "")) == authority


@given(st.one_of(st.text(max_size=60), st.from_regex(r"https?://[a-z0-9.:@\[\]/-]{1,30}", fullmatch=True)))
def test_no_origin_passes_but_those_of_loopback_and_this_port(text: str) -> None:
    try:
        LOCAL.check(["127.0.0.1:8000"], [text], "http", 8000)
    except OriginRefused:
        return
    parsed = parse_origin(text)
    assert parsed is not None
    assert parsed[1] in {Authority(name, 8000) for name in ("localhost", "127.0.0.1", "::1")}


@given(st.one_of(st.text(max_size=60), st.from_regex(r"(localhost|127\.0\.0\.1|\[::1\])[a-z0-9.:@/%\\ -]{0,12}", fullmatch=True)))
def test_no_host_passes_but_loopback_on_this_port(text: str) -> None:
    try:
        LOCAL.check([text], [], "http", 8000)
    except HostRefused:
        return
    assert parse_authority(text) in {Authority(name, 8000) for name in ("localhost", "127.0.0.1", "::1")}
