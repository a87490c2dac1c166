"""HTML as a tree: measured, relieved of furniture, turned into blocks without losing a character of the text."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield.errors import DocumentBomb, DocumentEmpty, DocumentEncodingUnknown, DocumentTooManyPages
from shield.sources.files import dom
from shield.sources.model import BlockKind
from tests.peers import documents
from tests.unit.sources.files.limits import DEFAULT, limits


def tree(html: str) -> Any:
    return dom.parse(html.encode(), None, DEFAULT)


def blocks(html: str) -> list[tuple[str, str]]:
    return [(str(block.kind), block.text) for block in dom.html_blocks(tree(html), DEFAULT)]


class TestParse:
    def test_depth_is_bounded_exactly(self) -> None:
        dom.parse(documents.deep_html(250), None, DEFAULT)
        for depth in (260, 2_100, 20_000):
            with pytest.raises(DocumentBomb):
                dom.parse(documents.deep_html(depth), None, DEFAULT)

    def test_elements_left_open_are_not_nesting(self) -> None:
        html = "<ul>" + "<li>item<p>text" * 2000 + "</ul>"
        assert len(blocks(html)[0][1].split("\n")) == 2000

    @pytest.mark.parametrize("content", [b"", b"   ", b"<!-- only -->"])
    def test_nothing_is_empty(self, content: bytes) -> None:
        with pytest.raises(DocumentEmpty):
            dom.parse(content, None, DEFAULT)

    def test_the_page_may_name_its_encoding(self) -> None:
        page = '<meta charset="koi8-r"><p>Приветствие</p>'.encode("koi8-r")
        assert "".join(dom.parse(page, None, DEFAULT).itertext()) == "Приветствие"

    def test_the_header_beats_the_page(self) -> None:
        page = '<meta charset="iso-8859-1"><p>Приветствие</p>'.encode("koi8-r")
        assert "".join(dom.parse(page, "koi8-r", DEFAULT).itertext()) == "Приветствие"

    @settings(max_examples=80, deadline=None)
    @given(st.text(st.sampled_from("<>/\"'= abdiv!-&;#0123hltrpe\n"), max_size=200))
    def test_any_markup_gives_blocks_or_a_typed_error(self, html: str) -> None:
        with suppress(DocumentEmpty, DocumentEncodingUnknown):
            root = tree(html)
            dom.links(root, "https://a.example/")
            dom.drop_furniture(root)
            dom.html_blocks(root, DEFAULT)


class TestLinks:
    def test_they_are_absolute_in_order_once_and_from_the_whole_page(self) -> None:
        page = tree(
            '<nav><a href="/b">b</a></nav><a href="a?x=1#part">a</a><a href="/b#again">b</a><a href="mailto:x@y">m</a>'
            '<a href="javascript:x()">j</a><a>none</a><a href="http://[bad">bad</a><footer><a href="//other.example/">o</a></footer>'
        )
        assert dom.links(page, "https://site.example/docs/") == [
            "https://site.example/b",
            "https://site.example/docs/a?x=1",
            "https://other.example/",
        ]

    def test_a_base_element_moves_them(self) -> None:
        assert dom.links(tree('<head><base href="/v2/"></head><a href="x">x</a>'), "https://site.example/docs/") == [
            "https://site.example/v2/x"
        ]

    def test_a_base_outside_the_web_is_ignored(self) -> None:
        assert dom.links(tree('<base href="file:///etc/"><a href="passwd">x</a>'), "https://site.example/") == [
            "https://site.example/passwd"
        ]


class TestFurniture:
    def test_navigation_banners_and_hidden_parts_go_and_an_article_keeps_its_header(self) -> None:
        root = tree(
            "<header>site</header><nav>menu</nav><div class='cookie-banner'>cookies</div><div role='search'>find</div><p hidden>unseen</p>"
            "<main><article><header><h1>Title</h1></header><p class='cookie-recipe'>Bake it.</p><footer>By me</footer></article></main>"
            "<aside>more</aside><script>x()</script><footer>legal</footer>"
        )
        dom.drop_furniture(root)
        assert [block.text for block in dom.html_blocks(root, DEFAULT)] == ["Title", "Bake it.", "By me"]


class TestBlocks:
    def test_signs_that_markdown_would_eat_stay(self) -> None:
        assert blocks("<p>5*3*2 __init__ List&lt;String&gt; [x](y) 1 | 2 # a</p>") == [
            ("paragraph", "5*3*2 __init__ List<String> [x](y) 1 | 2 # a")
        ]

    def test_inline_elements_add_no_space(self) -> None:
        assert blocks("<p>a<b>b</b>c, <i>d</i>.<br>next</p>tail") == [("paragraph", "abc, d.\nnext"), ("paragraph", "tail")]

    def test_lists_nest(self) -> None:
        assert blocks("<ol><li>one<ul><li>a<li>b</ul><li><p>two</p></ol>") == [("list", "1. one\n  - a\n  - b\n2. two")]

    def test_definitions_are_a_list(self) -> None:
        assert blocks("<dl><dt>Term</dt><dd>meaning</dd><dd>another</dd></dl>") == [("list", "- Term: meaning\n- another")]

    def test_a_list_that_holds_code_falls_apart_into_its_blocks(self) -> None:
        assert blocks("<ol><li>Run <pre>a\n  b</pre><li>Done</ol>") == [("paragraph", "Run"), ("code", "a\n  b"), ("paragraph", "Done")]

    def test_spans_of_a_table_are_filled_in(self) -> None:
        html = "<table><caption>Prices</caption><tr><th colspan=2>Both<th>C<tr><td rowspan=2>x<td>y|y<td>z<tr><td>1<td>2</table>"
        assert blocks(html) == [
            ("paragraph", "Prices"),
            ("table", "| Both | Both | C |\n| --- | --- | --- |\n| x | y\\|y | z |\n| x | 1 | 2 |"),
        ]

    def test_a_table_for_layout_is_only_its_content(self) -> None:
        assert blocks("<table><tr><td><h2>Head</h2><table><tr><td>a<td>b<tr><td>c<td>d</table></table>")[0] == ("heading", "Head")
        assert blocks("<table><tr><td>only cell</table>") == [("paragraph", "only cell")]

    def test_hostile_spans_are_bounded(self) -> None:
        with pytest.raises((DocumentBomb, DocumentTooManyPages)):
            dom.html_blocks(tree("<table>" + "<tr><td colspan=99999 rowspan=99999>x" * 400 + "</table>"), limits(max_cells=10_000))

    def test_headings_keep_their_level(self) -> None:
        found = dom.html_blocks(tree("<h1> A\n b </h1><h4>C</h4>"), DEFAULT)
        assert [(block.kind, block.level, block.text) for block in found] == [(BlockKind.HEADING, 1, "A b"), (BlockKind.HEADING, 4, "C")]


def test_the_title_is_the_pages_or_its_first_heading() -> None:
    assert dom.title(tree("<title> A\n title </title><h1>x</h1>")) == "A title"
    assert dom.title(tree("<h1>Only heading</h1>")) == "Only heading"
    assert dom.title(tree("<p>none</p>")) == ""
