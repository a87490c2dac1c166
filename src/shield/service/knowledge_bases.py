"""Knowledge bases as their users see them."""

from __future__ import annotations

from shield.auth import Principal, Scope
from shield.knowledge.bases import BaseSummary
from shield.knowledge.fingerprint import fingerprint
from shield.service.audit import record
from shield.service.models import KnowledgeBaseCreate, KnowledgeBaseHash, KnowledgeBaseList, KnowledgeBaseView
from shield.service.reading import ReadCases


class BaseCases(ReadCases):
    """Listing, creating and fingerprinting; a deletion is a job (`intake.py`)."""

    async def knowledge_bases(self, who: Principal) -> KnowledgeBaseList:
        """All that the principal may see."""
        who.require(Scope.KB_READ)
        return KnowledgeBaseList(
            knowledge_bases=[_view(item) for item in await self.parts.bases.summaries() if who.sees(item.base.name, item.base.owner)]
        )

    async def create_knowledge_base(self, who: Principal, request: KnowledgeBaseCreate) -> KnowledgeBaseView:
        """Make one."""
        who.require(Scope.ADMIN)
        base = await self.parts.bases.create(request.name, owner=who.name, description=request.description, graph=request.graph)
        await record(self.parts.engine, who.name, "create", base.name, {"knowledge_base_id": str(base.id)})
        return _view(BaseSummary(base, documents=0, chunks=0, graph_pending=0))

    async def knowledge_base_hash(self, who: Principal, name: str) -> KnowledgeBaseHash:
        """Its fingerprint: of the documents and, where there is one, the graph."""
        who.require(Scope.KB_READ)
        base = await self._base(who, name)
        whole = await fingerprint(self.parts.engine, self.parts.vectors, base, self.parts.graph.fingerprint)
        return KnowledgeBaseHash(
            knowledge_base=base.name,
            hash=whole.hash,
            documents=whole.documents,
            chunks=whole.chunks,
            entities=whole.entities,
            relations=whole.relations,
        )


def _view(summary: BaseSummary) -> KnowledgeBaseView:
    base = summary.base
    return KnowledgeBaseView(
        id=base.id,
        name=base.name,
        description=base.description,
        graph=base.graph,
        embedding_model=base.embedding_model,
        embedding_dim=base.embedding_dim,
        documents=summary.documents,
        chunks=summary.chunks,
        graph_pending=summary.graph_pending,
        created_at=base.created_at,
    )
