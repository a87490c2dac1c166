"""Deleting, and the proof: nothing of the document is left, what others hold stays, and a deletion broken on purpose is found out."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from shield.database.fence import JobFence
from shield.errors import (
    DependencyUnavailable,
    DocumentDeleting,
    KnowledgeBaseProtected,
    LeaseLost,
    TracesLeft,
    UnknownDocument,
    UnknownKnowledgeBase,
)
from shield.knowledge.deletion import Deletion
from shield.knowledge.model import KnowledgeBase, Stored
from shield.knowledge.proof import Proof
from shield.knowledge.proofs import proof_of_job
from shield.settings import LibrarySettings
from shield.worker.context import Completed, Ending, Failed
from shield.worker.pipeline import DeleteHandler
from tests.integration.knowledge.conftest import Around, Crash, Desk, a_source, a_text

SECRET = "The vault behind the painting opens with the numbers seventeen, four and ninety-two."
SHARED = "Everybody in the building knows that the lift stops between the third and the fourth floor."
OTHER = "The garden is watered every morning at six by a machine in the shed."


async def delete(desk: Desk, document: UUID, job: JobFence | None = None) -> Proof:
    """The whole deletion, with the graph letting go at once."""
    job = job or await desk.job("delete")
    while await desk.deletion.begin(desk.kb, document, job):
        await desk.sql("UPDATE graph_tasks SET status = 'done', finished_at = now() WHERE status = 'pending'")
    return await desk.deletion.finish(desk.kb, document, job)


async def a_run(desk: Desk, kb: KnowledgeBase, job: JobFence) -> Ending:
    """One run of a job that deletes a whole base."""

    async def said(*_: Any, **__: Any) -> None:
        """Nobody listens."""

    row = SimpleNamespace(id=job.job_id, knowledge_base_id=kb.id, spec={"knowledge_base": kb.name})
    context: Any = SimpleNamespace(job=row, claim=SimpleNamespace(job=row, fence=job.fence), progress=said, outcome=said)
    tools: Any = SimpleNamespace(bases=desk.bases, deletion=desk.deletion, counted=lambda _: None)
    return await DeleteHandler(tools).run(context)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """On a disk: the proof reads what files hold, and in memory all that they reserve counts as held."""
    return tmp_path


@pytest.fixture
async def stored(desk: Desk) -> Stored:
    """A document with a secret and a shared sentence; another holds the shared one."""
    await desk.put("other", OTHER, SHARED)
    return await desk.put("https://example.org/secret", "# Vault", SECRET, SHARED, metadata={"note": f"About: {SECRET}", "team": "vault"})


class TestProof:
    async def test_nothing_is_left_and_the_shared_sentence_is_kept(self, desk: Desk, stored: Stored) -> None:
        proof = await delete(desk, stored.document_id)
        assert (proof.hits, proof.sentences_shared, proof.stores["found"]) == (0, 1, {})
        assert proof.sentences_checked >= 3
        assert proof.stores["points"] == 1
        assert proof.stores["tables"] > 15
        assert proof.stores["files"] > 0
        assert not any(SECRET in text for text in await desk.texts("vault painting numbers"))
        assert await desk.texts("the lift stops between floors") != []
        for table in ("documents", "document_revisions", "chunks", "embeddings"):
            assert await desk.count(table) == 1

    async def test_it_says_what_a_job_shows(self, desk: Desk, stored: Stored) -> None:
        job = await desk.job("delete")
        assert await proof_of_job(desk.engine, job.job_id) is None
        await delete(desk, stored.document_id, job)
        shown = await proof_of_job(desk.engine, job.job_id)
        assert shown is not None
        assert (shown["documents"], shown["hits"], shown["stores"][0]["found"]) == (1, 0, {})

    async def test_a_text_that_two_documents_share_whole_stays_with_the_other(self, desk: Desk) -> None:
        first, second = await desk.put("a", SECRET), await desk.put("b", SECRET)
        proof = await delete(desk, first.document_id)
        assert (proof.hits, proof.sentences_checked, proof.sentences_shared) == (0, 1, 1)
        assert await desk.texts("vault") == [SECRET]
        proof = await delete(desk, second.document_id)
        assert (proof.hits, proof.sentences_shared) == (0, 0)

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("body text", SECRET),
            ("body text", json.dumps({"a": json.dumps({"b": f"x\n{SECRET}"})})),  # escaped twice
            ("body text", SECRET.upper().replace(" ", "\n  ")),
            ("body jsonb", json.dumps({"k": [f"before. {SECRET} after"]})),
            ("body varchar(500)[]", [SECRET]),
            ("body bytea", SECRET.encode()),
            ("body bytea", gzip.compress(SECRET.encode(), mtime=0)),
            ('"odd:name" text', SECRET),
        ],
    )
    async def test_a_table_nobody_thought_of_is_searched(self, desk: Desk, stored: Stored, column: str, value: object) -> None:
        name = column.split(maxsplit=1)[0]
        await desk.sql(f"CREATE TABLE left_over ({column.replace(':', chr(92) + ':')})")
        await desk.sql(f"INSERT INTO left_over ({name.replace(':', chr(92) + ':')}) VALUES (:value)", value=value)
        proof = await delete(desk, stored.document_id)
        assert proof.hits > 0
        assert [place for place in proof.stores["found"] if place.startswith("left_over.")]

    async def test_a_copy_that_was_cut_off_is_found(self, desk: Desk) -> None:
        long = " ".join(f"word{n}" for n in range(60)) + "."
        stored = await desk.put("u", long)
        await desk.sql("CREATE TABLE left_over (body text)")
        await desk.sql("INSERT INTO left_over VALUES (:value)", value=long[:200])
        assert (await delete(desk, stored.document_id)).hits > 0

    async def test_provenance_in_a_strange_table_is_found(self, desk: Desk, stored: Stored) -> None:
        await desk.sql("CREATE TABLE left_over (who uuid, source text, info jsonb)")
        await desk.sql("INSERT INTO left_over (who) VALUES (:id)", id=stored.document_id)
        await desk.sql("INSERT INTO left_over (source) VALUES ('https://example.org/secret'), ('https://example.org/secrets')")
        await desk.sql('INSERT INTO left_over (info) VALUES (\'{"source": "https://example.org/secret"}\')')
        found = (await delete(desk, stored.document_id)).stores["found"]
        assert found == {"left_over.who": 1, "left_over.source": 1, "left_over.info": 1}

    async def test_the_books_may_name_it(self, desk: Desk, stored: Stored) -> None:
        job = await desk.job("crawl", "completed")
        await desk.sql(
            "INSERT INTO job_outcomes (job_id, number, source, status, document_id) VALUES (:j, 1, 'https://example.org/secret', 'stored', :d)",
            j=job.job_id,
            d=stored.document_id,
        )
        assert (await delete(desk, stored.document_id)).hits == 0

    async def test_vectors_that_were_forgotten_are_found(self, desk: Desk, stored: Stored) -> None:
        class Forgetful(Around):
            async def delete_revision(self, *args: Any, **kw: Any) -> None:
                """Says it did."""

        proof = await delete(desk.through(Forgetful(desk.vectors)), stored.document_id)
        assert proof.hits > 0
        assert "vectors" in proof.stores["found"]

    async def test_a_file_that_was_forgotten_is_found(self, desk: Desk, stored: Stored) -> None:
        folder = desk.data_dir / "uploads"
        folder.mkdir(exist_ok=True)
        (folder / "copy").write_bytes(b"x" * (1024**2 - 30) + b"\n" + SECRET.encode())  # across two blocks
        (folder / "link").symlink_to(folder / "copy")
        (desk.data_dir / "pg18").mkdir()
        (desk.data_dir / "pg18" / "wal").write_text(SECRET)  # PostgreSQL's own files are a stated limit
        proof = await delete(desk, stored.document_id)
        assert list(proof.stores["found"]) == ["files:uploads"]

    async def test_what_a_job_still_carries_is_not_knowledge_yet(self, desk: Desk, stored: Stored) -> None:
        await desk.job(status="pending", payload=SECRET.encode())
        assert (await delete(desk, stored.document_id)).hits == 0

    async def test_a_document_that_comes_in_during_the_search_is_told_apart(self, desk: Desk, stored: Stored) -> None:
        job = await desk.job("delete")
        await desk.deletion.begin(desk.kb, stored.document_id, job)
        await desk.sql("UPDATE graph_tasks SET status = 'done'")

        class Late(Around):
            """Stores the same sentence elsewhere just when the vectors are searched, after the tables."""

            async def scan(self, *args: Any, **kw: Any) -> AsyncIterator[Any]:
                await desk.put("late", SECRET)
                async for item in self.inner.scan(*args, **kw):
                    yield item

        desk.data_dir.joinpath("cache").mkdir(exist_ok=True)
        desk.data_dir.joinpath("cache", "late").write_text(SECRET)
        proof = await desk.through(Late(desk.vectors)).deletion.finish(desk.kb, stored.document_id, job)
        assert proof.hits == 0
        assert proof.sentences_shared >= 2


class TestSteps:
    async def test_it_waits_for_the_graph(self, desk: Desk, stored: Stored) -> None:
        job = await desk.job("delete")
        assert await desk.deletion.begin(desk.kb, stored.document_id, job)
        assert await desk.deletion.begin(desk.kb, stored.document_id, job)
        removals = await desk.sql("SELECT job_id FROM graph_tasks WHERE operation = 'remove'")
        assert [row[0] for row in removals] == [job.job_id]
        with pytest.raises(DependencyUnavailable):
            await desk.deletion.finish(desk.kb, stored.document_id, job)
        await desk.sql("UPDATE graph_tasks SET status = 'done'")
        assert not await desk.deletion.begin(desk.kb, stored.document_id, job)
        assert (await desk.deletion.finish(desk.kb, stored.document_id, job)).hits == 0

    async def test_a_removal_the_graph_gave_up_fails_the_job_and_another_asks_again(self, desk: Desk, stored: Stored) -> None:
        job = await desk.job("delete")
        await desk.deletion.begin(desk.kb, stored.document_id, job)
        await desk.sql("UPDATE graph_tasks SET status = 'failed' WHERE operation = 'remove'")
        with pytest.raises(DependencyUnavailable):
            await desk.deletion.begin(desk.kb, stored.document_id, job)
        assert await desk.deletion.begin(desk.kb, stored.document_id, await desk.job("delete"))

    @pytest.mark.parametrize("step", ["forget", "prove", "end"])
    async def test_a_crash_anywhere_is_repeated_to_the_same_proof(
        self, desk: Desk, stored: Stored, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def crash(*_: object) -> None:
            raise Crash

        job = await desk.job("delete")
        await desk.deletion.begin(desk.kb, stored.document_id, job)
        await desk.sql("UPDATE graph_tasks SET status = 'done'")
        target = {
            "forget": "shield.knowledge.embedding.cache.CachedEmbedder.forget",
            "prove": "shield.knowledge.proof.Prover.prove",
            "end": "shield.knowledge.deletion.remove_documents",
        }[step]
        with monkeypatch.context() as patch:
            patch.setattr(target, crash)
            with pytest.raises(Crash):
                await desk.deletion.finish(desk.kb, stored.document_id, job)
        proof = await delete(desk, stored.document_id, job)
        assert (proof.stores["found"], proof.sentences_shared) == ({}, 1)
        assert proof.sentences_checked >= 3
        assert await desk.deletion.finish(desk.kb, stored.document_id, job) == proof

    async def test_a_stale_worker_removes_nothing(self, desk: Desk, stored: Stored) -> None:
        job = await desk.job("delete")
        with pytest.raises(LeaseLost):
            await desk.deletion.begin(desk.kb, stored.document_id, JobFence(job.job_id, 0))
        assert len(await desk.texts("vault")) == 2

    async def test_an_unknown_document_is_refused(self, desk: Desk) -> None:
        job = await desk.job("delete")
        with pytest.raises(UnknownDocument):
            await desk.deletion.begin(desk.kb, uuid4(), job)
        with pytest.raises(UnknownDocument):
            await desk.deletion.finish(desk.kb, uuid4(), job)

    async def test_uploads_bodies_and_payloads_go_with_it(self, desk: Desk) -> None:
        writer = await desk.job()
        stored = await desk.put("https://example.org/secret", SECRET, job=writer)
        await desk.sql(
            "INSERT INTO crawl_pages (job_id, number, url, depth, state, body, links) VALUES (:j, 1, 'https://example.org/secret', 0, 'done', :b, ARRAY['x'])",
            j=writer.job_id,
            b=SECRET.encode(),
        )
        await desk.sql(
            "INSERT INTO uploads (principal, name, content, stored, job_id, expires_at) VALUES ('local', 'a', :b, true, :j, now() + interval '1 day')",
            j=writer.job_id,
            b=SECRET.encode(),
        )
        await desk.sql("UPDATE jobs SET payload = :b, status = 'completed', finished_at = now()", b=SECRET.encode())
        assert (await delete(desk, stored.document_id)).hits == 0
        assert await desk.count("uploads") == 0
        assert (await desk.sql("SELECT body, links FROM crawl_pages"))[0] == (None, None)

    async def test_an_upload_in_a_file_is_erased_through_its_store(self, desk: Desk) -> None:
        writer = await desk.job()
        stored = await desk.put("u", SECRET, job=writer)
        rows = await desk.sql(
            "INSERT INTO uploads (principal, name, stored, job_id, expires_at) VALUES ('local', 'a', true, :j, now() + interval '1 day') RETURNING id",
            j=writer.job_id,
        )
        await desk.sql("UPDATE jobs SET status = 'completed', finished_at = now()")
        erased: list[UUID] = []

        async def erase(upload: UUID) -> None:
            erased.append(upload)
            await desk.sql("DELETE FROM uploads WHERE id = :id", id=upload)

        deletion = Deletion(desk.engine, desk.vectors, desk.embedder, desk.data_dir, erase_upload=erase)
        job = await desk.job("delete")
        await deletion.begin(desk.kb, stored.document_id, job)
        await desk.sql("UPDATE graph_tasks SET status = 'done'")
        await deletion.finish(desk.kb, stored.document_id, job)
        assert erased == [rows[0][0]]

    async def test_a_source_that_comes_back_goes_on_with_its_numbers(self, desk: Desk) -> None:
        await desk.put("u", SECRET)
        stored = await desk.put("u", OTHER)
        await delete(desk, stored.document_id)
        assert (await desk.put("u", SHARED)).revision == 3

    async def test_a_worker_overtaken_by_a_later_life_of_the_document_does_it_no_harm(self, desk: Desk) -> None:
        stored = await desk.put("u", SECRET)

        class Paused(Around):
            """While this worker is about to remove points, another ends the deletion and the source comes back."""

            overtaken = False

            async def scan(self, *args: Any, **kw: Any) -> AsyncIterator[Any]:
                if not self.overtaken:
                    self.overtaken = True
                    await delete(desk, stored.document_id)
                    await desk.put("u", OTHER)
                async for item in self.inner.scan(*args, **kw):
                    yield item

        await desk.through(Paused(desk.vectors)).deletion.begin(desk.kb, stored.document_id, await desk.job("delete"))
        assert await desk.texts("garden") == [OTHER]

    async def test_a_put_that_was_under_way_ends_without_a_trace(self, desk: Desk) -> None:
        class Deleting(Around):
            async def upsert(self, *args: Any, **kw: Any) -> None:
                await delete(desk, before.document_id)
                await self.inner.upsert(*args, **kw)

        before = await desk.put("u", SECRET)
        with pytest.raises(DocumentDeleting):
            await desk.through(Deleting(desk.vectors)).put("u", OTHER)
        assert (await desk.fingerprint()).dead_points == 0
        assert await desk.count("chunks") == await desk.count("documents") == 0


class TestBases:
    async def test_a_whole_base_goes_with_a_proof_for_each_document(self, desk: Desk) -> None:
        kb = await desk.bases.create("doomed", owner="local")
        for number in range(5):
            await desk.library.put(kb, a_source(f"u{number}"), a_text(f"{SECRET} Copy number {number} of the paper that nobody else has."))
        await desk.put("kept", SHARED)
        deletion = Deletion(desk.engine, desk.vectors, desk.embedder, desk.data_dir, settings=LibrarySettings(max_delete_batch=2))
        job = await desk.job("delete")
        assert await deletion.begin_base(kb, job)
        with pytest.raises(UnknownKnowledgeBase):
            await desk.bases.get("doomed")
        await desk.sql("UPDATE graph_tasks SET status = 'done'")
        assert not await deletion.begin_base(kb, job)
        proofs = await deletion.finish_base(kb, job)
        # A sentence that a document of a later batch still holds counts as shared; the last batch finds nothing.
        assert [proof.hits for proof in proofs] == [0] * 5
        assert proofs[-1].sentences_shared == 0
        for table, left in (("documents", 1), ("chunks", 1), ("graph_tasks", 1), ("deletion_proofs", 5), ("knowledge_bases", 1)):
            assert await desk.count(table) == left
        assert not [path for path in Path(desk.data_dir, "vectors").rglob("*") if kb.id.hex in path.name]
        assert (await desk.bases.create("doomed", owner="local")).id != kb.id

    @pytest.mark.parametrize("retried", [False, True])
    async def test_a_run_after_one_that_left_traces_and_was_cut_off_does_not_say_completed(self, desk: Desk, *, retried: bool) -> None:
        kb = await desk.bases.create("doomed", owner="local", graph=False)
        await desk.library.put(kb, a_source("u"), a_text(SECRET))
        await desk.sql("CREATE TABLE left_over (body text)")
        await desk.sql("INSERT INTO left_over VALUES (:value)", value=SECRET)
        job = await desk.job("delete")
        assert not await desk.deletion.begin_base(kb, job)
        assert (await desk.deletion.finish_base(kb, job))[0].hits > 0  # ... and here the worker dies
        if retried:
            first, job = job, await desk.job("delete")
            await desk.sql("UPDATE jobs SET retry_of = :first WHERE id = :id", first=first.job_id, id=job.job_id)
        ending = await a_run(desk, kb, job)
        assert isinstance(ending, Failed)
        assert isinstance(ending.error, TracesLeft)

    async def test_a_run_after_one_that_left_nothing_says_completed(self, desk: Desk) -> None:
        kb = await desk.bases.create("doomed", owner="local", graph=False)
        await desk.library.put(kb, a_source("u"), a_text(SECRET))
        job = await desk.job("delete")
        assert isinstance(await a_run(desk, kb, job), Completed)
        assert isinstance(await a_run(desk, kb, job), Completed)

    async def test_default_stays(self, desk: Desk) -> None:
        with pytest.raises(KnowledgeBaseProtected):
            await desk.deletion.begin_base(desk.kb, await desk.job("delete"))
