"""Knowledge bases: their names, their numbers, their fingerprints."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield.errors import KnowledgeBaseExists, KnowledgeBaseNameInvalid, KnowledgeBaseProtected, UnknownKnowledgeBase
from shield.knowledge.bases import _NAME
from tests.integration.knowledge.conftest import Desk, a_source, a_text


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a" * 41, "a b", "a\n", "\u00e4"])
async def test_a_name_that_is_no_slug_is_refused(desk: Desk, name: str) -> None:
    with pytest.raises(KnowledgeBaseNameInvalid):
        await desk.bases.create(name, owner="local")


@settings(max_examples=200)
@given(st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z"))
def test_every_slug_is_a_name(name: str) -> None:
    assert _NAME.fullmatch(name)


async def test_a_taken_name_is_refused_and_of_ten_at_once_one_wins(desk: Desk) -> None:
    made = await asyncio.gather(*(desk.bases.create("team", owner="local") for _ in range(5)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in made) == ["KnowledgeBase", *["KnowledgeBaseExists"] * 4]
    with pytest.raises(KnowledgeBaseExists):
        await desk.bases.create("team", owner="local")


async def test_unknown_bases_are_never_made_by_a_typo(desk: Desk) -> None:
    for ask in (desk.bases.get("defualt"), desk.bases.by_id(uuid4()), desk.bases.summary("nope")):
        with pytest.raises(UnknownKnowledgeBase):
            await ask
    assert [each.base.name for each in await desk.bases.summaries()] == ["default"]


async def test_default_is_made_once_and_stays(desk: Desk) -> None:
    assert (await desk.bases.ensure_default(owner="somebody")).id == desk.kb.id
    for refused in (desk.bases.mark_deleting(desk.kb), desk.bases.remove(desk.kb)):
        with pytest.raises(KnowledgeBaseProtected):
            await refused
    with pytest.raises(KnowledgeBaseProtected):
        desk.bases.check_removable(desk.kb)


async def test_the_numbers_are_those_of_live_documents(desk: Desk) -> None:
    await desk.put("a", "# One", "first " * 10, "# Two", "second " * 10)
    await desk.put("b", "gone")
    await desk.sql("UPDATE documents SET live_revision = NULL WHERE source = 'b'")
    summary = await desk.bases.summary("default")
    assert (summary.documents, summary.chunks, summary.graph_pending) == (1, 2, 2)


class TestFingerprint:
    async def test_equal_content_gives_equal_hashes_whatever_the_order_and_the_history(self, desk: Desk) -> None:
        other = await desk.bases.create("other", owner="local")
        await desk.put("a", "first version")
        await desk.put("b", "second")
        await desk.put("a", "first")
        for source, text in (("b", "second"), ("a", "first")):
            await desk.library.put(other, a_source(source), a_text(text))
        mine = await desk.fingerprint()
        theirs = await Desk(desk.engine, desk.vectors, desk.embedder, desk.bases, other, desk.data_dir).fingerprint()
        assert mine == theirs
        assert (mine.documents, mine.chunks, mine.points, mine.dead_points) == (2, 2, 2, 0)

    async def test_every_change_shows(self, desk: Desk) -> None:
        seen = {(await desk.fingerprint()).hash}
        stored = await desk.put("a", "first")
        seen.add((await desk.fingerprint()).hash)
        await desk.put("a", "first", metadata={"x": 1})
        seen.add((await desk.fingerprint()).hash)
        await desk.put("b", "first")
        seen.add((await desk.fingerprint()).hash)
        from shield.knowledge.bases import space_of

        await desk.vectors.delete_document(space_of(desk.kb), stored.document_id)
        seen.add((await desk.fingerprint()).hash)
        assert len(seen) == 5
