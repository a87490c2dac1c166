"""The empty-shell rule against a committed set of pages, and against bytes that mean harm."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.sources.browser.shell import needs_browser, shows_nothing

PAGES = Path(__file__).parent / "pages"


@pytest.mark.parametrize("path", sorted(PAGES.glob("shells/*.html")), ids=lambda path: path.stem)
def test_a_shell_needs_a_browser(path: Path) -> None:
    assert needs_browser(path.read_bytes())


@pytest.mark.parametrize("path", sorted(PAGES.glob("short/*.html")), ids=lambda path: path.stem)
def test_a_short_page_that_says_something_does_not(path: Path) -> None:
    assert not needs_browser(path.read_bytes())


def test_what_a_browser_left_of_a_page_shows_something_or_nothing() -> None:
    assert shows_nothing(b"<html><body><div id=root></div></body></html>")
    assert not shows_nothing(b"<p>Nine words stand here for everybody who reads them</p>")


@pytest.mark.parametrize(
    "piece",
    [
        b"<script ",
        b"<!--",
        b"<",
        b"<div id=root",
        b"<div id=root> ",
        b"<noscript>",
        b"</script ",
        b"<a" * 3,
        b"<x-y>",
        b"<p ><p >",
        b"\xe3\x81",
    ],
)
def test_hostile_bytes_cost_no_more_than_their_length(piece: bytes) -> None:
    html = b"<script></script>" + piece * (400_000 // len(piece))
    started = time.process_time()
    needs_browser(html)
    assert time.process_time() - started < 1.5  # 20 times what it takes; a quadratic rule would need minutes


@given(st.binary(max_size=500), st.sampled_from([b"", b"<script>", b"<noscript>", b"<div id=app>", b"<!--"]))
def test_any_bytes_get_an_answer(content: bytes, mark: bytes) -> None:
    assert needs_browser(content + mark + content) in {True, False}
