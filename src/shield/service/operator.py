"""What the operator of a cluster does: it follows and cancels the rows of its IngestJobs, and sees that a namespace has its bases.

The operator is an administrator of the orchestrator and acts for many namespaces, so it names IngestJobs by uid and bases by namespace. It
reaches rows of pods only: a job of the fleet has no uid, and no batch meets one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from shield.auth import Principal, Scope
from shield.errors import InvalidRequest, KnowledgeBaseDeleting, KnowledgeBaseExists
from shield.jobs.pods import PodRow
from shield.knowledge.bases import BaseSummary
from shield.knowledge.model import KnowledgeBase
from shield.service.audit import record
from shield.service.collections import CollectionCases
from shield.service.models import (
    ActiveIngestJobs,
    CollectionView,
    EmbeddingView,
    IngestJobList,
    IngestJobsCancelled,
    IngestJobUids,
    IngestJobView,
    NamespaceBase,
    NamespaceBaseView,
    ProgressView,
    ReindexView,
)
from shield.service.models.operator import namespace_principal

_REINDEX = {"shadow": "running", "ready": "ready", "failed": "failed"}
"""What a collection beside the live one says of the reindex that builds it."""


class OperatorCases(CollectionCases):
    """Batches over the rows of pods, and bases of namespaces."""

    async def ingest_job_progress(self, who: Principal, request: IngestJobUids) -> IngestJobList:
        """Where the rows of these IngestJobs stand."""
        who.require(Scope.ADMIN)
        return IngestJobList(jobs=[_row(row) for row in await self.parts.jobs.pod_rows(request.uids)])

    async def cancel_ingest_jobs(self, who: Principal, request: IngestJobUids) -> IngestJobsCancelled:
        """Cancel those that have not ended."""
        who.require(Scope.ADMIN)
        return IngestJobsCancelled(cancelled=await self.parts.jobs.cancel_pods(request.uids))

    async def active_ingest_jobs(
        self, who: Principal, *, after: str | None = None, limit: int = 1000, namespaces: Sequence[str] | None = None
    ) -> ActiveIngestJobs:
        """Those that have not ended, a page at a time."""
        who.require(Scope.ADMIN)
        principals = None if namespaces is None else [namespace_principal(namespace) for namespace in namespaces]
        uids = list(await self.parts.jobs.active_pods(after or "", limit, principals))
        told = None if namespaces is None else list(namespaces)
        return ActiveIngestJobs(uids=uids, next=uids[-1] if len(uids) == limit else None, namespaces=told)

    async def ensure_namespace_base(self, who: Principal, namespace: str, name: str, request: NamespaceBase) -> NamespaceBaseView:
        """The base of that name, made if it is missing, if it is this namespace's."""
        who.require(Scope.ADMIN)
        if (request.embedding_model is None) != (request.embedding_dim is None):
            fields = ["embedding_model", "embedding_dim"]
            raise InvalidRequest(f"{', '.join(fields)}: they belong together.", fields=fields)
        owner = namespace_principal(namespace)
        if await self.parts.bases.owned(name, owner=owner, description=request.description) is None:
            await self._make(who, name, owner, request)
            await self.parts.bases.owned(name, owner=owner, description=request.description)  # another may have been quicker
        found = await self.parts.bases.summaries(name)
        if not found:
            raise KnowledgeBaseDeleting
        return _view(found[0], (await self._collections(found[0].base)).collections)

    async def _make(self, who: Principal, name: str, owner: str, request: NamespaceBase) -> None:
        embedding = None
        if request.embedding_model is not None and request.embedding_dim is not None:
            asked = (request.embedding_model, request.embedding_dim)
            self.parts.embedder.of(*asked)  # one that is not configured here is refused now
            embedding = None if request.graph else asked  # a graph begins with the installation's model; a reindex moves the passages
        try:
            base: KnowledgeBase = await self.parts.bases.create(
                name, owner=owner, description=request.description, graph=request.graph, embedding=embedding
            )
        except KnowledgeBaseExists:
            return  # whose it is, its row says
        await record(self.parts.engine, who.name, "create", base.name, {"knowledge_base_id": str(base.id), "owner": owner})


def _row(row: PodRow) -> IngestJobView:
    return IngestJobView(
        uid=row.uid,
        job_id=row.id,
        status=row.status.value,
        outcome=row.outcome,
        error_code=row.error_code,
        stage=row.stage.value,
        progress=ProgressView(**asdict(row.progress)),
        attempts=row.attempts,
        updated_at=row.updated_at,
    )


def _view(summary: BaseSummary, collections: list[CollectionView]) -> NamespaceBaseView:
    base = summary.base
    return NamespaceBaseView(
        id=base.id,
        name=base.name,
        owner=base.owner,
        description=base.description,
        graph=base.graph,
        documents=summary.documents,
        chunks=summary.chunks,
        graph_pending=summary.graph_pending,
        embedding=EmbeddingView(model=base.embedding_model, dim=base.embedding_dim),
        collections=collections,
        reindex=_reindex(collections),
        created_at=base.created_at,
    )


def _reindex(collections: list[CollectionView]) -> ReindexView | None:
    """The newest move that is not over; a failed one counts only while there is no other."""
    moving = [item for item in collections if item.state in _REINDEX]
    moving.sort(key=lambda item: item.state != "failed")
    if not moving:
        return None
    newest = moving[-1]
    embedding = EmbeddingView(model=newest.model, dim=newest.dim)
    return ReindexView(embedding=embedding, state=_REINDEX[newest.state], job_id=newest.job_id)
