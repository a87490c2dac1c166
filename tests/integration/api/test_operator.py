"""What the operator of a cluster asks for, answered on a real database: bases of namespaces, rows of IngestJobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.app.assembly import Wake, answering, connect_core
from shield.auth import LOCAL, Principal, Scope
from shield.errors import (
    DependencyMisconfigured,
    Forbidden,
    InvalidRequest,
    KnowledgeBaseConflict,
    KnowledgeBaseDeleting,
    KnowledgeBaseNameInvalid,
    UnknownKnowledgeBase,
)
from shield.service.local import LocalShield
from shield.service.models import DocumentSpec, IngestJobUids, IngestRequest, NamespaceBase
from shield.settings import Settings
from tests.integration.jobs.support import Rows

BASE = "team-a--docs"
TEAM = Principal("k8s:team-a", frozenset({Scope.KB_READ, Scope.KB_WRITE, Scope.JOBS_READ}), frozenset())
OTHERS = Principal("k8s:team-b", TEAM.scopes, frozenset())


@pytest.fixture
async def shield(settings: Settings, dsn: str) -> AsyncIterator[LocalShield]:
    shadow = settings.shadow.model_copy(update={"provider": "openai", "model": "other-24", "dim": 24, "base_url": "http://127.0.0.1:9/v1"})
    settings = settings.model_copy(update={"shadow": shadow})
    async with AsyncExitStack() as stack:
        core = await connect_core(settings, dsn, stack, migrate=False)
        yield LocalShield((await answering(core, stack, Wake())).parts)


async def ensure(shield: LocalShield, namespace: str = "team-a", **request: object) -> object:
    return await shield.ensure_namespace_base(LOCAL, namespace, BASE, NamespaceBase(**request))


class TestBases:
    async def test_a_base_is_made_once_and_belongs_to_its_namespace(self, shield: LocalShield) -> None:
        views = await asyncio.gather(*(shield.ensure_namespace_base(LOCAL, "team-a", BASE, NamespaceBase(graph=False)) for _ in range(4)))
        assert len({view.id for view in views}) == 1
        view = views[0]
        assert (view.name, view.owner, view.graph, view.documents, view.chunks, view.reindex) == (BASE, "k8s:team-a", False, 0, 0, None)
        assert (view.embedding.model, view.embedding.dim) == ("all-minilm-l6-v2", 384)
        assert [(item.model, item.state) for item in view.collections] == [("all-minilm-l6-v2", "live")]
        request = IngestRequest(knowledge_base=BASE, spec=DocumentSpec(text="mine"))
        assert (await shield.ingest(TEAM, request)).knowledge_base == BASE
        with pytest.raises(UnknownKnowledgeBase):
            await shield.ingest(OTHERS, request)

    async def test_of_one_that_exists_only_the_description_changes(self, shield: LocalShield) -> None:
        await ensure(shield, description="old", graph=False)
        view = await shield.ensure_namespace_base(
            LOCAL, "team-a", BASE, NamespaceBase(description="new", graph=True, embedding_model="other-24", embedding_dim=24)
        )
        assert (view.description, view.graph, view.embedding.model) == ("new", False, "all-minilm-l6-v2")

    async def test_another_namespace_or_person_is_told_that_it_is_taken(self, shield: LocalShield) -> None:
        await ensure(shield)
        with pytest.raises(KnowledgeBaseConflict):
            await ensure(shield, "team-b")
        with pytest.raises(KnowledgeBaseConflict):
            await shield.ensure_namespace_base(LOCAL, "team-a", "default", NamespaceBase())

    async def test_one_that_is_being_deleted_is_waited_for(self, shield: LocalShield) -> None:
        await ensure(shield)
        await shield.parts.bases.mark_deleting(await shield.parts.bases.get(BASE))
        with pytest.raises(KnowledgeBaseDeleting):
            await ensure(shield)
        with pytest.raises(KnowledgeBaseConflict):
            await ensure(shield, "team-b")

    async def test_a_new_one_can_begin_with_another_model_that_is_configured(self, shield: LocalShield) -> None:
        other = NamespaceBase(graph=False, embedding_model="other-24", embedding_dim=24)
        view = await shield.ensure_namespace_base(LOCAL, "team-a", BASE, other)
        assert (view.embedding.model, view.embedding.dim) == ("other-24", 24)
        graph = await shield.ensure_namespace_base(LOCAL, "team-a", "team-a--g", other.model_copy(update={"graph": True}))
        assert (graph.embedding.model, graph.graph) == ("all-minilm-l6-v2", True)  # its graph could not hold the other one's vectors
        with pytest.raises(DependencyMisconfigured):
            await shield.ensure_namespace_base(LOCAL, "team-a", "team-a--b", NamespaceBase(embedding_model="unheard-of", embedding_dim=24))
        with pytest.raises(UnknownKnowledgeBase):
            await shield.parts.bases.get("team-a--b")

    async def test_a_move_to_another_model_shows(self, shield: LocalShield, engine: AsyncEngine) -> None:
        await ensure(shield)
        base = await shield.parts.bases.get(BASE)
        rows = Rows(engine)
        for state, shown in (("failed", "failed"), ("shadow", "running"), ("ready", "ready")):
            await rows.run("DELETE FROM collections")
            await rows.run(
                "INSERT INTO collections (knowledge_base_id, model, dim, state) VALUES (:kb, 'other-24', 24, :state)",
                kb=base.id,
                state=state,
            )
            view = await shield.ensure_namespace_base(LOCAL, "team-a", BASE, NamespaceBase())
            assert view.reindex is not None
            assert (view.reindex.state, view.reindex.embedding.model) == (shown, "other-24")
            assert [item.state for item in view.collections] == ["live", state]

    async def test_a_name_that_is_none_is_refused(self, shield: LocalShield) -> None:
        with pytest.raises(KnowledgeBaseNameInvalid):
            await shield.ensure_namespace_base(LOCAL, "team-a", "Team_A", NamespaceBase())
        with pytest.raises(InvalidRequest):
            await shield.ensure_namespace_base(LOCAL, "team-a", BASE, NamespaceBase(embedding_model="other-24"))


class TestIngestJobs:
    async def test_the_operator_sees_and_cancels_what_a_pod_accepted(self, shield: LocalShield) -> None:
        await ensure(shield)
        request = IngestRequest(knowledge_base=BASE, spec=DocumentSpec(text="mine"))
        job = await shield.ingest(TEAM, request, idempotency_key="u-1", runner="ingestjob:u-1")
        [row] = (await shield.ingest_job_progress(LOCAL, IngestJobUids(uids=["u-1", "u-2"]))).jobs
        assert (row.uid, row.job_id, row.status, row.attempts) == ("u-1", job.job_id, "pending", 0)
        assert (await shield.active_ingest_jobs(LOCAL)).uids == ["u-1"]
        assert (await shield.active_ingest_jobs(LOCAL, limit=1)).next == "u-1"
        ours = await shield.active_ingest_jobs(LOCAL, namespaces=["team-a", "team-b"])
        assert (ours.uids, ours.namespaces) == (["u-1"], ["team-a", "team-b"])
        theirs = await shield.active_ingest_jobs(LOCAL, namespaces=["team-b"])
        assert (theirs.uids, theirs.namespaces) == ([], ["team-b"])
        assert (await shield.cancel_ingest_jobs(LOCAL, IngestJobUids(uids=["u-1"]))).cancelled == 1
        assert (await shield.active_ingest_jobs(LOCAL)).uids == []
        assert (await shield.job(TEAM, job.job_id)).status == "cancelled"

    async def test_only_an_administrator_may(self, shield: LocalShield) -> None:
        calls = (
            shield.ingest_job_progress(TEAM, IngestJobUids(uids=[])),
            shield.cancel_ingest_jobs(TEAM, IngestJobUids(uids=[])),
            shield.active_ingest_jobs(TEAM),
            shield.ensure_namespace_base(TEAM, "team-a", BASE, NamespaceBase()),
        )
        for call in calls:
            with pytest.raises(Forbidden):
                await call
