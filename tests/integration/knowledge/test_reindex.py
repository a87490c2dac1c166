"""Moving a base to another embedding model: it answers all the time, takes documents all the time, and can go back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import DependencyMisconfigured, LeaseLost, NothingToFlip, ReindexIncomplete, ReindexNotPossible
from shield.jobs.model import OutcomeStatus, Status
from shield.knowledge.filling import Filler
from shield.knowledge.library import Library
from shield.knowledge.reindex import Reindexer
from shield.knowledge.vectors.edge import EdgeIndex
from shield.knowledge.vectors.port import SpaceKey
from tests.integration.knowledge.conftest import Around, Crash, a_source, a_text
from tests.integration.knowledge.moving import NEW, OLD, TOPICS, Moving, about, moving
from tests.integration.knowledge.test_deletion import delete


@pytest.fixture
async def moved(engine: AsyncEngine, data_dir: Path) -> AsyncIterator[Moving]:
    """The base, stocked with a document a topic."""
    vectors = EdgeIndex(data_dir / "vectors")
    async with moving(engine, vectors, data_dir) as moved:
        await moved.stock()
        yield moved
    await vectors.close()


class When(Around):
    """The vector index, with something happening once, after the first write to a collection of this model."""

    def __init__(self, inner: Any, model: str, action: Callable[[], Any], *, before: bool = False) -> None:
        super().__init__(inner)
        self._model, self._action, self._before = model, action, before
        self._done = False

    async def upsert(self, space: SpaceKey, points: Any) -> None:
        hit = space.model == self._model and not self._done
        self._done |= hit
        if hit and self._before:
            await self._action()
        await self.inner.upsert(space, points)
        if hit and not self._before:
            await self._action()


class TestMoving:
    async def test_the_base_answers_from_the_new_model_and_nothing_else_changes(self, moved: Moving) -> None:
        before = await moved.desk.fingerprint()
        job = await moved.reindex()
        assert (job.status, job.outcome, job.progress.percentage) == (Status.COMPLETED, "complete", 100)
        assert (job.progress.documents, job.progress.chunks) == (len(TOPICS), len(TOPICS))
        base = await moved.base()
        assert (base.embedding_model, base.embedding_dim, base.founded_on) == (NEW, 48, (OLD, 32))
        asked = moved.peer.texts[f"{NEW}:steam turbine of hall three"]
        assert (await moved.texts("steam turbine of hall three"))[0] == about("steam turbine")
        assert moved.peer.texts[f"{NEW}:steam turbine of hall three"] == asked + 1
        after = replace(moved.desk, kb=base)
        assert (await after.fingerprint()).hash == before.hash
        assert not (await moved.desk.put("main-valve", "# main valve", about("main valve"))).changed

    async def test_the_report_compares_both_on_headings(self, moved: Moving) -> None:
        await moved.reindex()
        report = next(item.report for item in await moved.tools.reindexer.collections(moved.desk.kb) if item.space == moved.new)
        assert (report["questions"], report["source"]) == (len(TOPICS), "headings")
        assert report["found_rate"] == {"old": 1.0, "new": 1.0}
        assert report["overlap_at_10"] == 1.0  # four passages, ten asked for
        assert len(report["overlap_by_question"]) == len(TOPICS)

    async def test_given_questions_are_asked_and_then_forgotten(self, moved: Moving) -> None:
        job = await moved.reindex(questions=["Where is the steam turbine described?", "oil filter"])
        report = next(item.report for item in await moved.tools.reindexer.collections(moved.desk.kb) if item.space == moved.new)
        assert (report["questions"], report["source"]) == (2, "given")
        assert "questions" not in (await moved.jobs.get(None, job.id)).spec

    async def test_each_text_is_embedded_once_by_the_new_model(self, moved: Moving) -> None:
        await moved.reindex()
        stored = [text for text in moved.peer.texts if text.startswith(NEW) and "manual" in text]
        assert len(stored) == len(TOPICS)
        assert {moved.peer.texts[text] for text in stored} == {1}

    async def test_documents_that_come_meanwhile_and_later_are_in_both(self, moved: Moving) -> None:
        async def store() -> None:
            await moved.desk.put("new-1", about("boiler"))
            await moved.desk.put("main-valve", about("main valve", 2))

        await moved.through(When(moved.desk.vectors, NEW, store)).reindex()
        await moved.desk.put("new-2", about("stairway"))
        for checked in (await moved.checked()).values():
            assert (checked.missing, checked.other, checked.expected) == (0, 0, len(TOPICS) + 2)
        assert about("main valve", 2) in await moved.texts("main valve")

    async def test_a_document_is_cut_for_the_model_the_base_was_made_with(self, moved: Moving) -> None:
        await moved.reindex()
        library = Library(moved.desk.engine, moved.desk.vectors, moved.desk.embedder)
        counted: list[str] = []
        moved.desk.embedder.of(OLD, 32).count_tokens = lambda text: counted.append(text) or 1  # type: ignore[method-assign, func-returns-value]
        await library.put(await moved.base(), a_source("x"), a_text(about("crane")))
        assert counted


class TestRefusals:
    async def test_a_model_that_is_not_configured_waits_for_the_operator(self, moved: Moving) -> None:
        job = await moved.reindex(model="unheard-of-16", dim=16)
        assert (job.status, job.waiting_for) == (Status.PENDING, "embedding")
        with pytest.raises(DependencyMisconfigured):
            moved.desk.embedder.of("unheard-of-16", 16)

    async def test_a_base_with_a_graph_takes_documents_only_where_its_graphs_model_is_the_installations(self, moved: Moving) -> None:
        graphed = replace(moved.desk.kb, graph=True)
        await moved.desk.library.put(graphed, a_source("a"), a_text(about("crane")))
        with pytest.raises(DependencyMisconfigured, match="graph"):
            await moved.desk.library.put(replace(graphed, founding_model=NEW, founding_dim=48), a_source("b"), a_text(about("crane")))

    async def test_the_model_it_has_and_a_second_reindex_at_once(self, moved: Moving) -> None:
        with pytest.raises(ReindexNotPossible):
            await moved.tools.reindexer.check_possible(moved.desk.kb, OLD, 32)
        claim = await moved.claim()
        await moved.tools.reindexer.begin(moved.desk.kb, NEW, 48, await moved.desk.job("reindex"))
        job = await moved.run(claim)
        assert (job.status, job.error_code) == (Status.FAILED, "kb.reindex_refused")

    async def test_a_text_that_the_model_refuses_is_named_and_nothing_is_flipped(self, moved: Moving) -> None:
        stored = await moved.desk.put("strange", "Unspeakable words that no model takes.")
        moved.peer.refused = "Unspeakable"
        job = await moved.reindex()
        assert (job.status, job.error_code) == (Status.FAILED, "kb.reindex_incomplete")
        (outcome,) = await moved.jobs.outcomes(job.id)
        assert (outcome.document_id, outcome.status, outcome.code) == (stored.document_id, OutcomeStatus.FAILED, "dependency.rejected")
        await moved.sweeper.sweep()
        assert await moved.states() == {}
        assert await moved.desk.vectors.count(moved.new) == 0
        assert len(await moved.texts("hall three")) == len(TOPICS) + 1

    async def test_a_model_that_answers_worse_waits_for_a_flip(self, moved: Moving) -> None:
        for number in range(15):  # more than the ten that are looked at
            await moved.desk.put(f"more-{number}", f"# notice {number}", about(f"notice {number}"))
        moved.peer.blunt = {NEW}
        job = await moved.reindex(min_overlap=1.0)
        assert (job.status, job.outcome) == (Status.COMPLETED, "partial")
        (outcome,) = await moved.jobs.outcomes(job.id)
        assert outcome.code == "kb.reindex_differs"
        assert await moved.states() == {NEW: "ready"}
        assert (await moved.base()).embedding_model == OLD
        await moved.tools.reindexer.flip(moved.desk.kb)
        assert await moved.states() == {NEW: "live", OLD: "retired"}

    async def test_without_a_wish_to_flip_it_stays_ready_until_it_is_given_up(self, moved: Moving) -> None:
        assert (await moved.reindex(flip=False)).outcome == "complete"
        assert await moved.states() == {NEW: "ready"}
        assert await moved.tools.reindexer.discard(moved.desk.kb) == 1
        with pytest.raises(NothingToFlip):
            await moved.tools.reindexer.flip(moved.desk.kb)
        await moved.sweeper.sweep()
        assert (await moved.states(), await moved.desk.vectors.count(moved.new)) == ({}, 0)

    async def test_a_job_that_ended_early_leaves_its_collection_to_the_next_or_to_the_sweeper(self, moved: Moving) -> None:
        async def cancel() -> None:
            raise asyncio.CancelledError

        job = await moved.through(When(moved.desk.vectors, NEW, cancel)).reindex()
        await moved.jobs.request_cancel("local", job.id)
        assert await moved.states() == {NEW: "shadow"}
        await moved.sweeper.sweep()
        assert await moved.states() == {}
        assert (await moved.reindex()).outcome == "complete"


class TestGoingBack:
    async def test_a_rollback_finds_the_old_collection_complete(self, moved: Moving) -> None:
        await moved.reindex()
        await moved.desk.put("main-valve", about("main valve", 2))
        await moved.desk.put("late", about("boiler"))
        await moved.tools.reindexer.rollback(moved.desk.kb)
        assert await moved.states() == {NEW: "retired", OLD: "live"}
        assert (await moved.base()).embedding_model == OLD
        checked = (await moved.checked())[OLD]
        assert (checked.missing, checked.other) == (0, 0)
        assert set(await moved.texts("hall three edition manual")) == {
            *(about(topic) for topic in TOPICS if topic != "main valve"),
            about("main valve", 2),
            about("boiler"),
        }
        await moved.tools.reindexer.rollback(moved.desk.kb)  # and forward again
        assert (await moved.base()).embedding_model == NEW

    async def test_after_the_window_the_old_one_is_dropped(self, engine: AsyncEngine, data_dir: Path) -> None:
        vectors = EdgeIndex(data_dir / "vectors")
        async with moving(engine, vectors, data_dir, rollback_window=0) as moved:
            await moved.stock()
            await moved.reindex()
            with pytest.raises(NothingToFlip):
                await moved.tools.reindexer.rollback(moved.desk.kb)
            await moved.desk.put("late", about("boiler"))  # not written to it any more
            assert moved.peer.texts[f"{OLD}:{about('boiler')}"] == 0
            await moved.sweeper.sweep()
            assert (await moved.states(), await vectors.count(moved.old)) == ({NEW: "live"}, 0)
        await vectors.close()

    async def test_cached_vectors_of_a_model_that_nothing_uses_any_more_do_not_stay(self, moved: Moving) -> None:
        await moved.reindex()
        await moved.desk.sql("UPDATE embeddings SET created_at = now() - interval '8 days'")
        await moved.sweeper.sweep()
        assert await moved.desk.count("embeddings") == 2 * len(TOPICS)
        await moved.tools.reindexer.rollback(moved.desk.kb)
        await moved.tools.reindexer.discard(moved.desk.kb)
        await moved.sweeper.sweep()
        await moved.sweeper.sweep()
        assert {row[0] for row in await moved.desk.sql("SELECT DISTINCT model FROM embeddings")} == {f"{OLD}:32"}

    async def test_a_model_that_is_away_stops_neither_ingest_nor_search_and_catches_up(self, moved: Moving) -> None:
        await moved.reindex()
        moved.peer.down = {OLD}
        assert (await moved.desk.put("late", about("boiler"))).changed
        assert about("boiler") in await moved.texts("boiler")
        with pytest.raises(ReindexIncomplete):
            await moved.tools.reindexer.rollback(moved.desk.kb)
        await moved.sweeper.sweep()  # tries, and fails quietly
        moved.peer.down = set()
        async with asyncio.timeout(5):
            while (await moved.checked())[OLD].missing:
                await moved.sweeper.sweep()
                await asyncio.sleep(0.02)
        await moved.tools.reindexer.rollback(moved.desk.kb)
        assert about("boiler") in await moved.texts("boiler")


class TestReaders:
    async def test_reindex_flip_and_rollback_show_every_document_once_all_the_time(self, moved: Moving) -> None:
        done = asyncio.Event()
        seen: list[str] = []

        async def read() -> None:
            while not done.is_set():
                base = await moved.base()
                hits = (await moved.desk.search.search(base, "hall three edition manual", limit=20)).hits
                sources = sorted(hit.source for hit in hits)
                assert sources == sorted(topic.replace(" ", "-") for topic in TOPICS)
                seen.append(base.embedding_model)

        async def write() -> None:
            edition = 1
            while not done.is_set():
                edition += 1
                await moved.desk.put("main-valve", about("main valve", edition))

        async def move() -> None:
            try:
                await moved.reindex()
                flipped = len(seen)
                while len(seen) < flipped + 3:
                    await asyncio.sleep(0.01)
                while True:
                    try:
                        await moved.tools.reindexer.rollback(moved.desk.kb)
                    except ReindexIncomplete:
                        await moved.sweeper.sweep()
                    else:
                        break
                flipped = len(seen)
                while len(seen) < flipped + 3:
                    await asyncio.sleep(0.01)
            finally:
                done.set()

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for work in (read, read, write, move):
                tasks.create_task(work())
        assert seen[0] == OLD
        assert NEW in seen
        assert seen[-1] == OLD
        await moved.sweeper.sweep()
        assert all(checked.missing == 0 for checked in (await moved.checked()).values())


class TestRaces:
    async def test_a_write_that_began_before_the_shadow_and_ended_after_the_flip_is_found(self, moved: Moving) -> None:
        async def move() -> None:
            assert (await moved.reindex()).outcome == "complete"

        slow = moved.desk.through(When(moved.desk.vectors, OLD, move))
        await slow.put("main-valve", about("main valve", 2))
        assert (await moved.base()).embedding_model == NEW
        assert about("main valve", 2) in await moved.texts("main valve")
        for checked in (await moved.checked()).values():
            assert (checked.missing, checked.other) == (0, 0)

    async def test_a_write_that_began_before_the_shadow_and_ended_before_the_flip_is_noted(self, moved: Moving) -> None:
        async def begin() -> None:
            await moved.reindex(flip=False)

        await moved.desk.through(When(moved.desk.vectors, OLD, begin)).put("main-valve", about("main valve", 2))
        with pytest.raises(ReindexIncomplete):
            await moved.tools.reindexer.flip(moved.desk.kb)
        await moved.sweeper.sweep()
        await moved.tools.reindexer.flip(moved.desk.kb)
        assert about("main valve", 2) in await moved.texts("main valve")

    async def test_a_document_deleted_while_it_is_indexed_leaves_no_trace_in_either(self, moved: Moving) -> None:
        stored = await moved.desk.put("secret", "The secret passage behind the boiler is known to nobody but the night watch.")
        proofs = []

        async def remove() -> None:
            proofs.append(await delete(moved.desk, stored.document_id))

        await moved.through(When(moved.desk.vectors, NEW, remove)).reindex()
        assert [proof.hits for proof in proofs] == [0]
        assert await moved.desk.count("missing_points") == 0
        for checked in (await moved.checked()).values():
            assert (checked.missing, checked.other) == (0, 0)

    async def test_deleting_after_the_move_clears_both_collections(self, moved: Moving) -> None:
        stored = await moved.desk.put("secret", "The secret passage behind the boiler is known to nobody but the night watch.")
        await moved.reindex()
        assert (await delete(replace(moved.desk, kb=await moved.base()), stored.document_id)).hits == 0
        for space in (moved.old, moved.new):
            assert [key async for key, _ in moved.desk.vectors.scan(space, document_id=stored.document_id)] == []

    async def test_a_worker_that_wakes_up_after_its_collection_was_given_up_leaves_nothing_in_it(self, moved: Moving) -> None:
        async def give_up() -> None:
            await moved.desk.sql("UPDATE collections SET state = 'failed'")
            await moved.sweeper.sweep()

        through = moved.through(When(moved.desk.vectors, NEW, give_up, before=True))
        collection = await moved.tools.reindexer.begin(moved.desk.kb, NEW, 48, await moved.desk.job("reindex"))
        assert collection is not None
        with pytest.raises(ReindexNotPossible):
            await Filler(moved.desk.engine, through.desk.vectors, moved.desk.embedder).fill(collection)
        assert await moved.desk.vectors.count(moved.new) == 0

    async def test_an_outdated_worker_neither_begins_nor_flips(self, moved: Moving) -> None:
        job = await moved.desk.job("reindex")
        await moved.desk.sql("UPDATE jobs SET fence = 2")
        with pytest.raises(LeaseLost):
            await moved.tools.reindexer.begin(moved.desk.kb, NEW, 48, job)
        assert await moved.states() == {}
        await moved.reindex(flip=False)
        with pytest.raises(LeaseLost):
            await moved.tools.reindexer.flip(moved.desk.kb, job)
        assert await moved.states() == {NEW: "ready"}


class Killed(Reindexer):
    """A reindexer that is killed after one of its steps, which has taken effect."""

    step = ""

    async def begin(self, *args: Any) -> Any:
        result = await super().begin(*args)
        self._perhaps("begin")
        return result

    async def ready(self, *args: Any) -> None:
        await super().ready(*args)
        self._perhaps("ready")

    async def flip(self, *args: Any) -> Any:
        result = await super().flip(*args)
        self._perhaps("flip")
        return result

    def _perhaps(self, step: str) -> None:
        if self.step == step:
            self.step = ""
            raise Crash


class TestCrashes:
    @pytest.mark.parametrize("step", ["begin", "before the first write", "after the first write", "after a settled step", "ready", "flip"])
    async def test_a_run_killed_at_any_step_is_finished_by_the_next(
        self, moved: Moving, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shield.knowledge.filling.DOCUMENTS", 2)
        before = await moved.desk.fingerprint()

        async def crash() -> None:
            raise Crash

        tools = moved.tools
        if "write" in step:
            tools = moved.through(When(moved.desk.vectors, NEW, crash, before=step.startswith("before"))).tools
        elif step == "after a settled step":
            filler = moved.tools.filler

            class Once(Filler):
                async def fill(self, collection: Any, *args: Any, **more: Any) -> Any:
                    await filler.fill(collection, steps=1)
                    raise Crash

            tools = replace(moved.tools, filler=Once(moved.desk.engine, moved.desk.vectors, moved.desk.embedder))
        else:
            killed = Killed(moved.desk.engine, moved.settings)
            killed.step = step
            tools = replace(moved.tools, reindexer=killed)
        again = await moved.cut_off(await moved.claim(), tools)
        assert len(await moved.texts("hall three")) == len(TOPICS)
        job = await moved.run(again)
        assert (job.status, job.outcome) == (Status.COMPLETED, "complete")
        assert await moved.states() == {NEW: "live", OLD: "retired"}
        assert (await replace(moved.desk, kb=await moved.base()).fingerprint()).hash == before.hash
        for checked in (await moved.checked()).values():
            assert (checked.missing, checked.other) == (0, 0)
        assert await moved.desk.count("missing_points") == 0
