"""Every format from file to blocks, with the real readers, in this process; and what each refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shield.errors import DocumentBomb
from shield.settings import FileSettings
from shield.sources.files import document
from shield.sources.files.child import Prepared, perform, prepare
from shield.sources.files.limits import Limits
from shield.sources.files.sniff import Kind
from tests.peers import documents

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

LIMITS = Limits.of(FileSettings())


@pytest.fixture(scope="module")
def docling() -> Prepared:
    return prepare("docling")


@pytest.fixture(scope="module")
def crawl4ai(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRAWL4_AI_BASE_DIRECTORY", str(tmp_path_factory.mktemp("crawl4ai")))
        patch.setenv("CRAWL4AI_NO_CLOUD_NOTICE", "1")
        return prepare("crawl4ai")


def convert(prepared: Prepared, content: bytes, name: str, mime: str | None = None, limits: Limits = LIMITS) -> dict[str, Any]:
    pages: list[int] = []
    request = {"operation": "file", "filename": name, "mime": mime, "limits": limits.as_json()}
    return perform(request, content, prepared, pages.append) | {"told": pages}


def found(answer: dict[str, Any]) -> list[tuple[str, str, int, int | None]]:
    return [tuple(block) for block in answer["blocks"]]


class TestPdf:
    def test_two_columns_come_in_reading_order_with_their_headings_table_and_pages(self, docling: Prepared) -> None:
        answer = convert(docling, documents.pdf(), "manual.pdf", "application/pdf")
        blocks = found(answer)
        text = "\n".join(block[1] for block in blocks)
        markers = [text.index(f"Marker {chapter}.{part} begins") for chapter in range(1, 5) for part in range(3)]
        assert markers == sorted(markers)
        assert (
            "table",
            "| Part | Code | Price |\n| --- | --- | --- |\n| Rotor | E4711 | 12.50 |\n| Stator | E4712 | 9.00 |",
            0,
            1,
        ) in blocks
        headings = [(block[1], block[2]) for block in blocks if block[0] == "heading"]
        assert ("2 Chapter number 2", 1) in headings
        assert ("2.1 Section below 2", 2) in headings
        assert ("list", "- point a of the list\n- point b of the list\n- point c of the list", 0, 2) in blocks
        assert ("code", "def f(x):\nreturn x + 1", 0, 2) in blocks
        assert "RUNNING HEADER" not in text
        assert "of many" not in text
        assert (answer["title"], answer["pages"], answer["told"]) == ("Pump handbook", 2, [2])
        assert answer["converter"] == "docling 2.142.0 heuristic shield 1"

    def test_pages_without_text_are_empty(self, docling: Prepared) -> None:
        assert convert(docling, documents.blank_pdf(), "scan.pdf")["error"] == "document.empty"

    def test_a_password_is_asked_of_the_sender(self, docling: Prepared) -> None:
        assert convert(docling, documents.pdf(chapters=1, password="secret"), "a.pdf")["error"] == "document.encrypted"

    def test_pages_are_bounded(self, docling: Prepared) -> None:
        answer = convert(docling, documents.blank_pdf(4), "a.pdf", limits=replace(LIMITS, max_pages=3))
        assert answer["error"] == "document.too_many_pages"

    @pytest.mark.parametrize("cut", [20, 2000, -200])
    def test_a_truncated_file_is_corrupt(self, docling: Prepared, cut: int) -> None:
        assert convert(docling, documents.pdf(chapters=1)[:cut], "a.pdf")["error"] in {"document.corrupt", "document.empty"}


class TestOffice:
    def test_docx(self, docling: Prepared) -> None:
        answer = convert(docling, documents.docx(), "handbook.docx")
        assert found(answer) == [
            ("heading", "The handbook", 1, None),
            ("heading", "First part", 2, None),
            ("paragraph", "Plain with bold text & more_under * star.", 0, None),
            ("heading", "Deeper", 3, None),
            ("list", "- one\n- two", 0, None),
            ("table", "| Name | Value\\|pipe |\n| --- | --- |\n| port | 8000 |", 0, None),
            ("paragraph", "Last words.", 0, None),
        ]
        assert (answer["title"], answer["pages"]) == ("The handbook", None)

    def test_pptx_with_notes_and_slide_numbers(self, docling: Prepared) -> None:
        answer = convert(docling, documents.pptx(), "slides.pptx")
        assert found(answer) == [
            ("heading", "Slide 1", 1, 1),
            ("list", "- bullet a\n  - bullet b", 0, 1),
            ("paragraph", "Speaker note 1", 0, 1),
            ("heading", "Slide 2", 1, 2),
            ("list", "- bullet a\n  - bullet b", 0, 2),
            ("paragraph", "Speaker note 2", 0, 2),
            ("heading", "Table slide", 1, 3),
            ("table", "| Key | Value |\n| --- | --- |\n| alpha | 1 |", 0, 3),
        ]
        assert (answer["pages"], answer["told"]) == (3, [3])

    def test_xlsx_with_sheet_names_and_without_hidden_sheets(self, docling: Prepared) -> None:
        answer = convert(docling, documents.xlsx(), "prices.xlsx")
        assert found(answer) == [("heading", "Prices", 1, 1), ("table", "| Item | Price |\n| --- | --- |\n| Rotor | 12.5 |", 0, 1)]

    def test_a_workbook_without_cells_is_empty(self, docling: Prepared) -> None:
        assert convert(docling, documents.xlsx(rows=()), "a.xlsx")["error"] == "document.empty"

    @pytest.mark.parametrize(
        ("content", "error"),
        [
            (lambda: documents.xlsx(cell="XFD1048576"), "document.bomb"),
            (lambda: documents.xlsx(merge="A1:XFD20000"), "document.bomb"),
            (lambda: documents.rezip(documents.docx(), {}, extra=[("word/bomb.xml", b"<a>" * 300)]), "document.bomb"),
            (
                lambda: documents.rezip(documents.docx(), {"word/document.xml": lambda _: b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'}),
                "document.bomb",
            ),
            (lambda: documents.docx()[:3000], "document.corrupt"),
            (lambda: b"PK\x03\x04 garbage", "document.corrupt"),
            (lambda: b"", "document.empty"),
        ],
    )
    def test_hostile_and_broken_files_are_refused(self, docling: Prepared, content: Callable[[], bytes], error: str) -> None:
        assert convert(docling, content(), "")["error"] == error

    def test_what_breaks_docling_is_left_to_the_process_boundary(self, docling: Prepared) -> None:
        broken = documents.rezip(documents.docx(), {"word/document.xml": lambda _: b"<nothing/>"})
        with pytest.raises(RuntimeError):
            convert(docling, broken, "a.docx")

    @pytest.mark.parametrize(("cause", "raised"), [(MemoryError(), MemoryError), (RecursionError(), DocumentBomb)])
    def test_memory_and_recursion_are_told_apart_however_they_are_wrapped(self, cause: Exception, raised: type[Exception]) -> None:
        class Breaks:
            def convert(self, _: object) -> None:
                raise RuntimeError("Pipeline failed") from cause

        with pytest.raises(raised):
            document.convert(Breaks(), b"x", Kind.DOCX, LIMITS)


class TestMarkup:
    def test_markdown_loses_its_front_matter_but_not_its_title(self, docling: Prepared) -> None:
        answer = convert(docling, documents.MARKDOWN, "manual.md")
        assert found(answer) == [
            ("heading", "Pump manual", 1, None),
            ("paragraph", "Intro emph and code_x and a_b * c, see link. 5 < 6 & AT&T", 0, None),
            ("heading", "Parts", 2, None),
            ("list", "- rotor\n- stator big\n  - winding", 0, None),
            ("table", "| Part | Code |\n| --- | --- |\n| rotor | E_47 |", 0, None),
            ("code", "def f():\n    return 1", 0, None),
        ]
        assert answer["title"] == "From the front"

    def test_html_loses_its_navigation(self, docling: Prepared) -> None:
        answer = convert(docling, documents.HTML, "guide.html")
        assert found(answer) == [
            ("heading", "Valves", 1, None),
            ("paragraph", "Some bold, and a link.", 0, None),
            ("heading", "Kinds", 2, None),
            ("list", "- ball\n  - trunnion\n- gate DN50 size", 0, None),
            ("table", "| Part | Code |\n| --- | --- |\n| ring seal | E4711 |", 0, None),
            ("code", "x = 1\n  y", 0, None),
        ]
        assert answer["title"] == "Valve guide"

    def test_html_keeps_its_letters_whatever_encoding_it_names(self, docling: Prepared) -> None:
        page = '<meta charset="koi8-r"><p>Приветствие &amp; больше</p>'.encode("koi8-r")
        assert found(convert(docling, page, "a.html"))[0][1] == "Приветствие & больше"

    def test_deep_html_is_a_bomb(self, docling: Prepared) -> None:
        assert convert(docling, documents.deep_html(20_000), "a.html")["error"] == "document.bomb"

    @pytest.mark.parametrize(
        ("name", "content"),
        [("a.md", b"---\ntitle: x\n---\n"), ("a.html", b"<html><body></body></html>"), ("a.txt", b" \n "), ("a.csv", b",,\n")],
    )
    def test_nothing_is_empty(self, docling: Prepared, name: str, content: bytes) -> None:
        assert convert(docling, content, name)["error"] == "document.empty"


class TestText:
    def test_text_and_tables_need_no_docling(self) -> None:
        answer = convert(Prepared(), "Grüße\n\n# no heading".encode("cp1252"), "a.txt")
        assert found(answer) == [("paragraph", "Grüße", 0, None), ("paragraph", "# no heading", 0, None)]
        answer = convert(Prepared(), b"a;b\n1;2", "a.csv")
        assert found(answer) == [("table", "| a | b |\n| --- | --- |\n| 1 | 2 |", 0, None)]

    def test_binary_is_no_text(self) -> None:
        assert convert(Prepared(), b"words\0more", "a.txt")["error"] == "document.encoding_unknown"

    def test_the_text_a_file_yields_is_bounded(self) -> None:
        assert convert(Prepared(), b"words " * 100, "a.txt", limits=replace(LIMITS, max_text_bytes=500))["error"] == "document.too_large"


class TestWebPages:
    def page(self, prepared: Prepared, html: str, url: str = "https://site.example/docs/") -> dict[str, Any]:
        request = {"operation": "page", "url": url, "charset": None, "limits": LIMITS.as_json()}
        return perform(request, html.encode(), prepared, lambda _: None)

    def test_content_is_kept_whole_and_navigation_is_not(self, crawl4ai: Prepared) -> None:
        answer = self.page(
            crawl4ai,
            "<title>Install</title><nav><a href='/a'>A</a></nav><div class='cookie-banner'>We use cookies</div>"
            "<main><article><header><h1>Installing</h1></header><p>Run <code>pip install thing</code>, see <a href='setup'>the <b>setup</b></a>.</p>"
            "<h2>Options</h2><table><tr><th>Name<th>Default<tr><td>port<td>8000 | or_so</table>"
            "<p>Price is 5*3*2 and List&lt;String&gt;.</p><pre><code>def f(x):\n    return x_1 * 2</code></pre></article></main>"
            "<footer><a href='https://other.example/'>Other</a></footer>",
        )
        assert found(answer) == [
            ("heading", "Installing", 1, None),
            ("paragraph", "Run pip install thing, see the setup.", 0, None),
            ("heading", "Options", 2, None),
            ("table", "| Name | Default |\n| --- | --- |\n| port | 8000 \\| or_so |", 0, None),
            ("paragraph", "Price is 5*3*2 and List<String>.", 0, None),
            ("code", "def f(x):\n    return x_1 * 2", 0, None),
        ]
        assert answer["title"] == "Install"
        assert answer["links"] == ["https://site.example/a", "https://site.example/docs/setup", "https://other.example/"]
        assert answer["converter"] == "crawl4ai 0.9.5 shield 1"

    def test_a_short_page_is_kept(self, crawl4ai: Prepared) -> None:
        assert [block[1] for block in found(self.page(crawl4ai, "<p>Short.</p>"))] == ["Short."]

    def test_what_the_filter_would_throw_away_is_kept_if_it_is_most_of_the_page(self, crawl4ai: Prepared) -> None:
        links = "".join(f"<li><a href='/{n}'>Chapter {n} of the book</a></li>" for n in range(30))
        assert found(self.page(crawl4ai, f"<ul>{links}</ul>"))[0][1].count("Chapter") == 30

    def test_a_page_of_navigation_only_still_has_text(self, crawl4ai: Prepared) -> None:
        assert "Only menu" in found(self.page(crawl4ai, "<nav><p>Only menu words here</p></nav>"))[0][1]

    @pytest.mark.parametrize(
        ("html", "error"),
        [
            ("<html><body></body></html>", "page.empty"),
            ("", "page.empty"),
            ("<div id=root></div><script>render()</script>", "page.needs_browser"),
            (documents.deep_html(3000).decode(), "document.bomb"),
        ],
    )
    def test_pages_without_text_say_why(self, crawl4ai: Prepared, html: str, error: str) -> None:
        assert self.page(crawl4ai, html)["error"] == error

    def test_each_page_has_its_own_address(self, crawl4ai: Prepared) -> None:
        for host in ("one", "two"):
            assert self.page(crawl4ai, "<p>Words</p><a href='x'>x</a>", f"https://{host}.example/")["links"] == [
                f"https://{host}.example/x"
            ]
