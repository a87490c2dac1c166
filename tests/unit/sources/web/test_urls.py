"""Canonical URLs and crawl scopes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.errors import InvalidRequest, UrlInvalid
from shield.sources.urls import MAX_URL, Scope, canonical, join, origin


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        ("https://example.com:443/A/b", "https://example.com/A/b"),
        ("http://example.com:80", "http://example.com/"),
        ("http://example.com:/x", "http://example.com/x"),
        ("https://example.com:8443/", "https://example.com:8443/"),
        ("http://example.com./a", "http://example.com/a"),
        ("http://example.com/a/./b/../c", "http://example.com/a/c"),
        ("http://example.com/../../x", "http://example.com/x"),
        ("http://example.com/a/%2e%2E/b", "http://example.com/b"),
        ("http://example.com/a/..", "http://example.com/"),
        ("http://example.com/a//b/", "http://example.com/a//b/"),
        ("http://example.com/%7euser/%c3%a4", "http://example.com/~user/%C3%A4"),
        ("http://example.com/ä b?q=ö x", "http://example.com/%C3%A4%20b?q=%C3%B6%20x"),
        ("http://example.com/100%", "http://example.com/100%25"),
        ("http://example.com/a%2fb", "http://example.com/a%2Fb"),
        ("http://example.com/?b=2&a=1#top", "http://example.com/?b=2&a=1"),
        ("http://example.com/?#x", "http://example.com/"),
        ("http://example.com?x=1", "http://example.com/?x=1"),
        ("http://Bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://faß.example/", "http://xn--fa-hia.example/"),
        ("http://[2001:DB8:0::1]:80/", "http://[2001:db8::1]/"),
        ("http://\uff11\uff12\uff17。0。0。1/", "http://127.0.0.1/"),
        ("  http://example.com/ \n", "http://example.com/"),
        ("http://a_b.example.com/", "http://a_b.example.com/"),
    ],
)
def test_one_address_has_one_spelling(given_url: str, expected: str) -> None:
    assert canonical(given_url) == expected
    assert canonical(expected) == expected


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "example.com",
        "//example.com/",
        "http:/example.com",
        "http:example.com",
        "http:///path",
        "http://",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/html,x",
        "gopher://example.com/",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://@example.com/",
        "http://good.example\\@evil.example/",
        "http://good.example\\.evil.example/",
        "http://exa mple.com/",
        "http://exa\tmple.com/",
        "http://example.com/\r\nHost: evil",
        "http://example.com/\x00",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:http/",
        "http://[::1/",
        "http://::1/",
        "http://[fe80::1%25eth0]/",
        "http://[v1.x]/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.0.0.0x1/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://exa%6dple.com/",
        "http://-a.example/",
        "http://a..b/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 130 + "example/",
        "http://example.com/" + "a" * MAX_URL,
        "http://example.com/\ud800",
        "http://\ud800.example/",
    ],
)
def test_an_ambiguous_or_foreign_address_is_refused(bad: str) -> None:
    with pytest.raises(UrlInvalid):
        canonical(bad)


@given(st.text(max_size=60))
def test_nothing_but_urlinvalid_comes_out_of_any_text(text: str) -> None:
    for candidate in (text, f"http://{text}", f"http://example.com/{text}", f"http://example.com/?{text}"):
        try:
            once = canonical(candidate)
        except UrlInvalid:
            continue
        assert canonical(once) == once
        assert once.isascii()
        assert origin(once).host


@given(st.text(max_size=40))
def test_a_link_joins_to_a_canonical_address_or_is_refused(text: str) -> None:
    try:
        url = join("http://example.com/a/b", text)
    except UrlInvalid:
        return
    assert canonical(url) == url


def test_links_are_resolved_against_their_page() -> None:
    assert join("http://example.com/a/b", "../c?x#y") == "http://example.com/c?x"
    assert join("https://example.com/a/b", "//other.example/c") == "https://other.example/c"


class TestScope:
    def test_without_domains_it_is_the_start_host_on_http_and_https(self) -> None:
        scope = Scope.of("https://docs.example.com/a")
        assert "https://docs.example.com/b" in scope
        assert "http://docs.example.com/b" in scope
        assert "https://example.com/" not in scope
        assert "https://docs.example.com.evil.example/" not in scope
        assert "https://docs.example.com:8443/" not in scope

    def test_the_start_port_counts_too(self) -> None:
        scope = Scope.of("http://127.0.0.1:8123/")
        assert "http://127.0.0.1:8123/x" in scope
        assert "http://127.0.0.1:8124/x" not in scope

    def test_a_plain_domain_matches_no_subdomain(self) -> None:
        scope = Scope.of("https://a.example/", ["example.com"])
        assert "https://example.com/" in scope
        assert "https://www.example.com/" not in scope
        assert "https://badexample.com/" not in scope

    @pytest.mark.parametrize("entry", ["*.example.com", ".example.com", " *.Example.COM "])
    def test_a_wildcard_matches_the_domain_and_all_below(self, entry: str) -> None:
        scope = Scope.of("https://a.example/", [entry])
        assert "https://example.com/" in scope
        assert "https://x.y.example.com/" in scope
        assert "https://badexample.com/" not in scope

    def test_an_entry_with_a_port_opens_only_that_port(self) -> None:
        scope = Scope.of("https://a.example/", ["b.example:8443"])
        assert "https://b.example:8443/" in scope
        assert "https://b.example/" not in scope

    @pytest.mark.parametrize(
        "entry", ["", "http://b.example/", "b.example/path", "u@b.example", "*", ".", "a b", "b.example:x", "[::1", "b\nc"]
    )
    def test_an_entry_that_is_no_host_is_named(self, entry: str) -> None:
        with pytest.raises(InvalidRequest, match="allowed_domains"):
            Scope.of("https://a.example/", [entry])
