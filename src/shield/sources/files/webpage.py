"""The content of a web page, by Crawl4AI: `arun("raw:…")` on HTML that was fetched already.

Crawl4AI cleans the tree and its pruning filter keeps what reads like content; where the filter keeps less than half of the
words, everything but navigation is taken instead. Title and links come from the whole page.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from shield.errors import DocumentEmpty, PageEmpty, PageNeedsBrowser
from shield.sources.files import dom
from shield.sources.files.limits import Limits
from shield.sources.model import Block

KEEP = 0.5
"""Least share of a page's words that the filter may keep."""


@dataclass(frozen=True)
class WebPage:
    """What a page holds."""

    blocks: list[Block]
    title: str
    links: list[str]
    canonical: str
    """The address it names as its own."""


class Extractor:
    """Crawl4AI, set up once: its configuration objects take longer to build than a page takes to read."""

    def __init__(self) -> None:
        from crawl4ai import AsyncWebCrawler, BrowserConfig, CacheMode, CrawlerRunConfig
        from crawl4ai.async_crawler_strategy import AsyncHTTPCrawlerStrategy

        # The strategy is the one without a browser; `raw:` pages never reach the network with either.
        self._crawler = AsyncWebCrawler(crawler_strategy=AsyncHTTPCrawlerStrategy(), config=BrowserConfig(verbose=False))
        self._config = CrawlerRunConfig(
            cache_mode=CacheMode.BYPASS,  # nothing is written to disk
            verbose=False,
            word_count_threshold=0,
            markdown_generator=_pruning(),
        )

    def extract(self, body: bytes, url: str, charset: str | None, limits: Limits) -> WebPage:
        """Read a page.

        Raises:
            PageEmpty, PageNeedsBrowser: there is no text, or none without JavaScript.
            DocumentBomb, DocumentEncodingUnknown, DocumentTooManyPages: see their sentences.
        """
        try:
            root = dom.parse(body, charset, limits)
        except DocumentEmpty as error:
            raise PageEmpty from error
        title, links, canonical = dom.title(root), dom.links(root, url), dom.canonical(root, url)
        scripted = root.find(".//script") is not None
        whole = dom.serialize(root)
        dom.drop_furniture(root)
        if not dom.words(root):
            root = dom.parse_text(whole, limits)  # a page that is all navigation
        blocks = dom.html_blocks(asyncio.run(self._content(dom.serialize(root), url, limits)), limits)
        if not blocks:
            raise PageNeedsBrowser if scripted else PageEmpty
        return WebPage(blocks, title, links, canonical)

    async def _content(self, html: str, url: str, limits: Limits) -> Any:
        self._config.base_url = url
        async with self._crawler as crawler:
            result = await crawler.arun("raw:" + html, config=self._config)
        if not result.success:
            raise RuntimeError("Crawl4AI refused the page")
        cleaned = _tree(result.cleaned_html, limits)
        fit = _tree(result.markdown.fit_html if result.markdown else "", limits)
        if fit is not None and cleaned is not None and dom.words(fit) >= KEEP * dom.words(cleaned):
            return fit
        return cleaned if cleaned is not None else dom.parse_text(html, limits)


def _tree(html: str | None, limits: Limits) -> Any:
    try:
        return dom.parse_text(html, limits) if html and html.strip() else None
    except DocumentEmpty:
        return None


def _pruning() -> Any:
    """A Markdown generator that prunes and leaves the Markdown out: blocks are made from the HTML, twice as fast."""
    from crawl4ai.content_filter_strategy import PruningContentFilterLXML
    from crawl4ai.markdown_generation_strategy import MarkdownGenerationStrategy
    from crawl4ai.models import MarkdownGenerationResult

    class Pruning(MarkdownGenerationStrategy):  # type: ignore[misc]
        def generate_markdown(self, input_html: str, *_: Any, **__: Any) -> Any:
            pieces = PruningContentFilterLXML(threshold=0.48, threshold_type="fixed", min_word_threshold=0).filter_content(input_html)
            return MarkdownGenerationResult(
                raw_markdown="",
                markdown_with_citations="",
                references_markdown="",
                fit_markdown="",
                fit_html="".join(f"<div>{piece}</div>" for piece in pieces),
            )

    return Pruning()
