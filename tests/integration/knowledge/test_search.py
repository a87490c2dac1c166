"""Searching: what is found, in which order, page by page, and when nothing speaks to the question."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from shield.errors import InvalidRequest, QueryTooShort
from shield.knowledge.answer import Composer
from shield.knowledge.filters import vector_filter
from shield.knowledge.model import Hit
from shield.knowledge.search import Searcher
from shield.settings import LibrarySettings, QuerySettings, Settings
from tests.integration.knowledge.conftest import Around, Desk, a_source, a_text
from tests.integration.knowledge.questions import ANSWERABLE, CORPUS, UNANSWERABLE


@pytest.fixture
async def corpus(desk: Desk) -> Desk:
    """The calibration corpus, a document a paragraph."""
    for name, paragraph in CORPUS.items():
        await desk.put(name, paragraph)
    return desk


async def test_the_floor_tells_answered_questions_from_unanswered_ones(corpus: Desk) -> None:
    asked = {question: await corpus.search.search(corpus.kb, question, limit=5) for question in (*dict(ANSWERABLE), *UNANSWERABLE)}
    wrong = [question for question, source in ANSWERABLE if source not in {hit.source for hit in asked[question].hits}]
    missed = [question for question, _ in ANSWERABLE if not asked[question].found]
    invented = [question for question in UNANSWERABLE if asked[question].found]
    assert (wrong, missed, invented) == ([], [], [])


class TestPages:
    async def test_pages_neither_overlap_nor_leave_gaps(self, desk: Desk) -> None:
        for number in range(5):
            parts = ([f"# Part {part}", f"{'pump ' * 40} document {number} part {part}"] for part in range(4))
            await desk.put(f"d{number}", *(block for part in parts for block in part))
        search = Searcher(desk.engine, desk.vectors, desk.embedder, QuerySettings(prefetch=4), LibrarySettings())
        whole = (await search.search(desk.kb, "pump document", limit=100)).hits
        assert len(whole) == 20
        pages: list[Hit] = []
        while True:
            page = await search.search(desk.kb, "pump document", limit=3, offset=len(pages))
            pages += page.hits
            if not page.more:
                break
        assert [hit.ref for hit in pages] == [hit.ref for hit in whole]

    async def test_behind_the_end_there_is_nothing(self, desk: Desk) -> None:
        await desk.put("u", "a pump")
        page = await desk.search.search(desk.kb, "pump", limit=5, offset=50)
        assert (page.hits, page.more, page.found) == ([], False, True)

    async def test_an_empty_base_finds_nothing(self, desk: Desk) -> None:
        result = await desk.search.search(desk.kb, "pump", limit=5)
        assert (result.hits, result.found, result.best_similarity) == ([], False, -1.0)


class TestTruth:
    async def test_another_base_is_never_seen(self, corpus: Desk) -> None:
        other = await corpus.bases.create("other", owner="local")
        await corpus.library.put(other, a_source("u"), a_text("The cooling pump of the others."))
        assert "u" not in [hit.source for hit in (await corpus.search.search(corpus.kb, "cooling pump", limit=50)).hits]

    async def test_points_without_a_live_revision_are_dropped(self, corpus: Desk) -> None:
        await corpus.sql("UPDATE documents SET live_revision = NULL WHERE source = 'pump'")
        assert all("cooling pump" not in text for text in await corpus.texts("cooling pump", 50))

    async def test_a_search_that_raced_with_an_update_looks_again(self, desk: Desk) -> None:
        await desk.put("u", "The pump runs at 40 bar.")

        class Racing(Around):
            """The document is replaced after the index was asked, before the text is read."""

            raced = False

            async def search_dense(self, *args: Any, **kw: Any) -> Any:
                found = await self.inner.search_dense(*args, **kw)
                if not self.raced:
                    self.raced = True
                    await desk.put("u", "The pump runs at 50 bar.")
                return found

        assert await desk.through(Racing(desk.vectors)).texts("pump") == ["The pump runs at 50 bar."]

    async def test_chunks_that_the_graph_names_are_shown_once_with_how_many_share_them(self, desk: Desk) -> None:
        for source in ("b", "a", "c"):
            await desk.put(source, "The pump runs at 40 bar.")
        await desk.sql("UPDATE documents SET live_revision = NULL WHERE source = 'c'")
        key = (await desk.sql("SELECT graph_key FROM document_revisions LIMIT 1"))[0][0]
        found = await desk.search.load_chunks(desk.kb, [(key, 0), (key, 0), (key, 7), ("unknown", 0)])
        assert {place: (shared.hit.source, shared.documents) for place, shared in found.items()} == {(key, 0): ("a", 2)}
        assert await desk.search.load_chunks(desk.kb, []) == {}


class TestFilters:
    @pytest.fixture
    async def filtered(self, desk: Desk) -> Desk:
        fetched = datetime(2026, 1, 1, tzinfo=UTC)
        await desk.library.put(
            desk.kb, a_source("https://Example.org/a", metadata={"year": 2020, "draft": True}, fetched_at=fetched), a_text("pump one")
        )
        await desk.library.put(desk.kb, a_source("https://other.org/b", metadata={"year": 2024, "tags": ["x", "y"]}), a_text("pump two"))
        await desk.library.put(desk.kb, a_source("n", kind="note", metadata={"year": 2024.5, "long": "word " * 20}), a_text("pump three"))
        return desk

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ({}, {"one", "two", "three"}),
            ({"kind": "note"}, {"three"}),
            ({"host": "example.org"}, {"one"}),
            ({"source": ["n", "https://other.org/b"]}, {"two", "three"}),
            ({"metadata.year": 2024}, {"two"}),
            ({"metadata.year": {"gte": 2024}}, {"two", "three"}),
            ({"metadata.draft": True}, {"one"}),
            ({"metadata.tags": "y"}, {"two"}),
            ({"metadata.tags": ["z", "x"], "kind": "web"}, {"two"}),
            ({"fetched_at": {"gt": 1}}, {"one"}),
            ({"mime": "text/plain", "metadata.absent": "x"}, set()),
        ],
    )
    async def test_they_narrow_the_search(self, filtered: Desk, filters: dict[str, Any], found: set[str]) -> None:
        result = await filtered.search.search(filtered.kb, "pump", limit=10, where=vector_filter(filters))
        assert {hit.text.split()[1] for hit in result.hits} == found

    async def test_a_document_can_be_asked_alone(self, filtered: Desk) -> None:
        document = (await filtered.documents.list(filtered.kb)).documents[-1]
        result = await filtered.search.search(filtered.kb, "pump", limit=10, where=vector_filter({"document_id": str(document.id)}))
        assert [hit.source for hit in result.hits] == [document.source]

    async def test_long_metadata_is_stored_but_no_filter(self, filtered: Desk) -> None:
        with pytest.raises(InvalidRequest):
            vector_filter({"metadata.long": "word " * 20})
        hit = (await filtered.search.search(filtered.kb, "three", limit=1)).hits[0]
        assert hit.metadata["long"] == "word " * 20


@pytest.mark.parametrize("query", ["?!", " ", "\u200b", "a"])
async def test_a_query_without_a_word_is_refused(desk: Desk, query: str) -> None:
    with pytest.raises(QueryTooShort):
        await desk.search.search(desk.kb, query, limit=1)


async def test_an_answer_quotes_the_documents_word_for_word(corpus: Desk, settings: Settings) -> None:
    await corpus.put("table", "# Bolts", "| size | torque |\n| --- | --- |\n| M8 | 25 Nm |\n| M10 | 49 Nm |")
    composer = Composer(corpus.search, corpus.embedder, None, settings)
    stored_before = await corpus.count("embeddings")
    for question, expected in [
        ("At which pressure does the safety valve close again?", "It closes again below 48 bar."),
        ("What torque does an M10 bolt need?", "| M10 | 49 Nm |"),
        ("What does E4711 mean?", "Fault E4711 means that the rotor is blocked."),
    ]:
        result = await corpus.search.search(corpus.kb, question, limit=10)
        answer = await composer.compose(question, result.hits)
        assert (answer.found, answer.kind, answer.degraded) == (True, "extractive", None)
        assert expected in answer.quotes[0].text
        assert 1 <= len(answer.quotes) <= 4
        for number, quote in enumerate(answer.quotes, 1):
            text = (await corpus.documents.get(corpus.kb, quote.hit.ref.document_id)).text
            assert text[quote.start : quote.end] == quote.text
            assert f"[{number}]" in answer.text
    assert await corpus.count("embeddings") == stored_before


async def test_an_answer_from_passages_replaced_just_now_is_none(corpus: Desk, settings: Settings) -> None:
    result = await corpus.search.search(corpus.kb, "What does E4711 mean?", limit=1)
    await corpus.put("error", "Something else stands here now.")
    answer = await Composer(corpus.search, corpus.embedder, None, settings).compose("What does E4711 mean?", result.hits)
    assert (answer.found, answer.kind, answer.quotes) == (False, "none", ())
