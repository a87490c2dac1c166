"""Vector collections as administrators see them: reindex and rebuild are jobs, a flip and a rollback take effect at once."""

from __future__ import annotations

from typing import Any

from shield.auth import Principal, Scope
from shield.errors import InvalidRequest
from shield.jobs.model import JobKind, JobRequest, Priority
from shield.knowledge.collections import Collection, State
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.rebuild import Checked, Rebuilder
from shield.knowledge.reindex import Reindexer
from shield.knowledge.relevance import searchable
from shield.service.audit import record
from shield.service.intake import request_hash
from shield.service.knowledge_bases import BaseCases
from shield.service.models import (
    CollectionCheck,
    CollectionList,
    CollectionView,
    JobView,
    KnowledgeBaseCheck,
    RebuildRequest,
    ReindexRequest,
)


class CollectionCases(BaseCases):
    """What an administrator does with the index of a knowledge base."""

    async def collections(self, who: Principal, name: str) -> CollectionList:
        """The live collection and those beside it."""
        who.require(Scope.ADMIN)
        return await self._collections(await self._base(who, name))

    async def check_knowledge_base(self, who: Principal, name: str) -> KnowledgeBaseCheck:
        """Count what the index holds against what it should; reads all of it."""
        who.require(Scope.ADMIN)
        base = await self._base(who, name)
        checked = await Rebuilder(self.parts.engine, self.parts.vectors).check(base)
        return KnowledgeBaseCheck(knowledge_base=base.name, ok=checked[0].missing == 0, collections=[_check(item) for item in checked])

    async def rebuild_knowledge_base(self, who: Principal, name: str, request: RebuildRequest) -> JobView:
        """Accept a rebuild."""
        who.require(Scope.ADMIN)
        base = await self._base(who, name)
        return await self._accept_for(who, base, JobKind.REBUILD, request.model_dump(), Priority.HIGH)

    async def reindex_knowledge_base(self, who: Principal, name: str, request: ReindexRequest) -> JobView:
        """Accept a reindex; a model that is not configured here is refused now."""
        who.require(Scope.ADMIN)
        if not all(searchable(question) for question in request.questions):
            raise InvalidRequest("questions: each needs a word to search for.", fields=["questions"])
        base = await self._base(who, name)
        self.parts.embedder.of(request.model, request.dim)
        await self._reindexer.check_possible(base, request.model, request.dim)
        return await self._accept_for(who, base, JobKind.REINDEX, request.model_dump(), Priority.NORMAL)

    async def flip_knowledge_base(self, who: Principal, name: str) -> CollectionList:
        """Answer from the collection that is ready."""
        who.require(Scope.ADMIN)
        base = await self._base(who, name)
        target = await self._reindexer.flip(base)
        return await self._changed(who, base, "flip", target)

    async def rollback_knowledge_base(self, who: Principal, name: str) -> CollectionList:
        """Answer from the collection before the last flip again."""
        who.require(Scope.ADMIN)
        base = await self._base(who, name)
        target = await self._reindexer.rollback(base)
        return await self._changed(who, base, "rollback", target)

    async def discard_collections(self, who: Principal, name: str) -> CollectionList:
        """Give up all collections but the live one."""
        who.require(Scope.ADMIN)
        base = await self._base(who, name)
        count = await self._reindexer.discard(base)
        await record(self.parts.engine, who.name, "discard", base.name, {"collections": str(count)})
        return await self._collections(base)

    @property
    def _reindexer(self) -> Reindexer:
        return Reindexer(self.parts.engine, self.parts.settings.library)

    async def _accept_for(self, who: Principal, base: KnowledgeBase, kind: JobKind, spec: dict[str, Any], priority: Priority) -> JobView:
        job = await self._accept(
            JobRequest(
                kind=kind,
                principal=who.name,
                knowledge_base_id=base.id,
                knowledge_base=base.name,
                spec=spec,
                request_hash=request_hash(kind, base.id, priority, spec),
                priority=priority,
            )
        )
        details: dict[str, str] = {"job_id": str(job.job_id), **{key: str(spec[key]) for key in ("model", "dim", "fresh") if key in spec}}
        await record(self.parts.engine, who.name, kind.value, base.name, details)
        return job

    async def _changed(self, who: Principal, base: KnowledgeBase, action: str, target: Collection) -> CollectionList:
        await record(self.parts.engine, who.name, action, base.name, {"model": target.space.model, "dim": str(target.space.dim)})
        return await self._collections(await self.parts.bases.by_id(base.id))

    async def _collections(self, base: KnowledgeBase) -> CollectionList:
        found = [_view(item) for item in await self._reindexer.collections(base)]
        if not any(item.state == "live" for item in found):  # a base that was never moved or rebuilt has no row of it
            found.insert(0, CollectionView(model=base.embedding_model, dim=base.embedding_dim, state="live"))
        return CollectionList(knowledge_base=base.name, collections=sorted(found, key=lambda item: item.state != State.LIVE))


def _view(item: Collection) -> CollectionView:
    return CollectionView(
        model=item.space.model,
        dim=item.space.dim,
        state=item.state.value,
        missing=item.missing,
        job_id=item.job_id,
        report=item.report,
        flipped_at=item.flipped_at,
        keep_until=item.keep_until,
    )


def _check(item: Checked) -> CollectionCheck:
    return CollectionCheck(
        model=item.space.model,
        dim=item.space.dim,
        state=item.state.value,
        expected=item.expected,
        present=item.present,
        missing=item.missing,
        other=item.other,
        incomplete_documents=len(item.incomplete),
    )
