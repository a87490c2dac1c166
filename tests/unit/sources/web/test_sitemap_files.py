"""Reading a sitemap's bytes: honest ones, and those that want to do harm."""

from __future__ import annotations

import gzip
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.errors import PageTooLarge, ShieldError, SitemapInvalid
from shield.sources.sitemap import Listing, parse

NS = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
CAP = 1024 * 1024


def read(body: str | bytes, most: int = 100) -> Listing:
    return parse(body if isinstance(body, bytes) else body.encode(), most=most, cap=CAP)


def urlset(*locations: str) -> str:
    urls = "".join(f"<url><loc>{location}</loc><lastmod>2026-01-01</lastmod></url>" for location in locations)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset {NS}>{urls}</urlset>'


class TestWhatIsRead:
    def test_locations_in_their_order(self) -> None:
        assert read(urlset("http://h/b", " http://h/a?x=1&amp;y=2\n")) == Listing(("http://h/b", "http://h/a?x=1&y=2"))

    def test_an_index(self) -> None:
        index = (
            f"<sitemapindex {NS}><sitemap><loc>http://h/1.xml</loc></sitemap><sitemap><loc>http://h/2.xml.gz</loc></sitemap></sitemapindex>"
        )
        assert read(index) == Listing(sitemaps=("http://h/1.xml", "http://h/2.xml.gz"))

    def test_prefixes_and_what_is_not_a_page(self) -> None:
        body = (
            '<s:urlset xmlns:s="x" xmlns:image="y"><s:url><image:image><image:loc>http://h/i.png</image:loc></image:image>'
            "<s:loc>http://h/<![CDATA[a]]></s:loc></s:url><s:loc>http://h/stray</s:loc></s:urlset>"
        )
        assert read(body) == Listing(("http://h/a",))

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
    def test_encodings(self, encoding: str) -> None:
        named = {"utf-16": "UTF-16", "utf-8-sig": "UTF-8", "latin-1": "ISO-8859-1"}[encoding]
        assert read(urlset("http://h/ä").replace("UTF-8", named).encode(encoding)).pages == ("http://h/ä",)

    def test_gzip(self) -> None:
        assert read(gzip.compress(urlset("http://h/a").encode())).pages == ("http://h/a",)

    def test_a_list_of_addresses(self) -> None:
        assert read("\ufeffhttp://h/a\r\n\r\nhttps://h/b\n").pages == ("http://h/a", "https://h/b")


class TestLimits:
    def test_what_exceeds_the_number_is_cut_and_told(self) -> None:
        urls = [f"http://h/{n}" for n in range(4)]
        assert read(urlset(*urls), most=4) == Listing(tuple(urls))
        assert read(urlset(*urls), most=3) == Listing(tuple(urls[:3]), cut=True)
        assert read("\n".join(urls), most=3) == Listing(tuple(urls[:3]), cut=True)
        assert read("\n".join([*urls[:3], ""]), most=3).cut is False

    def test_an_endless_location_is_left_out(self) -> None:
        assert read(urlset("http://h/" + "a" * 100_000, "http://h/b")).pages == ("http://h/b",)

    def test_a_bomb_stops_at_the_cap(self) -> None:
        with pytest.raises(PageTooLarge):
            read(gzip.compress(bytes(CAP + 1)))


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "body",
        [
            '<!DOCTYPE urlset [<!ENTITY a "http://h/secret">]><urlset><url><loc>&a;</loc></url></urlset>',
            '<!DOCTYPE urlset [<!ENTITY x SYSTEM "file:///etc/passwd">]><urlset><url><loc>&x;</loc></url></urlset>',
            '<!DOCTYPE urlset SYSTEM "http://10.0.0.1/x.dtd"><urlset/>',
            "<urlset><url><loc>&undefined;</loc></url></urlset>",
            "<!doctype html><html><body>not found</body></html>",
            "<html><url><loc>http://h/a</loc></url></html>",
            "<urlset><url><loc>http://h/a",
            '<?xml version="1.0" encoding="nonsense-8"?><urlset/>',
            "<urlset>" * 20,
            "",
            "Not found.",
            b"\x1f\x8bnot gzip",
            b"\x89PNG\r\n\x1a\n\0\0",
        ],
    )
    def test_it_is_no_sitemap(self, body: str | bytes) -> None:
        with pytest.raises(SitemapInvalid):
            read(body)

    @given(
        st.one_of(
            st.binary(max_size=200), st.text("<>/urlsetlocsitemap&;!\"'[] =", max_size=200).map(lambda text: f"<urlset>{text}".encode())
        )
    )
    def test_any_bytes_give_a_listing_or_a_typed_error(self, body: bytes) -> None:
        with suppress(ShieldError):
            listing = read(body, most=3)
            assert len(listing.pages) <= 3
            assert len(listing.sitemaps) <= 3
