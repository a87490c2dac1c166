"""Knowledge bases: listing, making, deleting, fingerprints, and their vector collections."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response

from shield import errors
from shield.api.dependencies import Caller, KbPath, Port
from shield.api.examples import body_examples
from shield.api.responses import BODY, DEPENDENCIES, QUOTAS, accepted, accepts_job, fails
from shield.service.models import (
    CollectionList,
    JobView,
    KnowledgeBaseCheck,
    KnowledgeBaseCreate,
    KnowledgeBaseHash,
    KnowledgeBaseList,
    KnowledgeBaseView,
    RebuildRequest,
    ReindexRequest,
)

_NAMED = (errors.UnknownKnowledgeBase, errors.KnowledgeBaseNameInvalid)

router = APIRouter(prefix="/knowledge-bases", tags=["knowledge bases"])


@router.get("", responses=fails())
async def list_knowledge_bases(shield: Port, who: Caller) -> KnowledgeBaseList:
    """All knowledge bases you may see."""
    return await shield.knowledge_bases(who)


@router.post("", status_code=201, responses=fails(*BODY, errors.KnowledgeBaseNameInvalid, errors.KnowledgeBaseExists))
async def create_knowledge_base(
    request: Annotated[KnowledgeBaseCreate, Body(openapi_examples=body_examples("create_knowledge_base"))], shield: Port, who: Caller
) -> KnowledgeBaseView:
    """Make a knowledge base."""
    return await shield.create_knowledge_base(who, request)


@router.delete(
    "/{name}",
    status_code=202,
    responses=accepts_job(errors.UnknownKnowledgeBase, errors.KnowledgeBaseNameInvalid, errors.KnowledgeBaseProtected, *QUOTAS),
)
async def delete_knowledge_base(name: KbPath, response: Response, shield: Port, who: Caller) -> JobView:
    """Delete a knowledge base with all its documents, as a job."""
    return accepted(await shield.delete_knowledge_base(who, name), response)


@router.get("/{name}/hash", responses=fails(errors.UnknownKnowledgeBase, errors.KnowledgeBaseNameInvalid))
async def knowledge_base_hash(name: KbPath, shield: Port, who: Caller) -> KnowledgeBaseHash:
    """A fingerprint of all that readers can see; equal content gives equal hashes on any machine."""
    return await shield.knowledge_base_hash(who, name)


@router.get("/{name}/collections", responses=fails(*_NAMED))
async def list_collections(name: KbPath, shield: Port, who: Caller) -> CollectionList:
    """The vector collections of a knowledge base: the live one, one that a reindex builds, and those kept for a rollback."""
    return await shield.collections(who, name)


@router.get("/{name}/check", responses=fails(*_NAMED, *DEPENDENCIES))
async def check_knowledge_base(name: KbPath, shield: Port, who: Caller) -> KnowledgeBaseCheck:
    """Count what the vector index holds against what it should; reads all of it."""
    return await shield.check_knowledge_base(who, name)


@router.post("/{name}/rebuild", status_code=202, responses=accepts_job(*_NAMED, *BODY, *QUOTAS))
async def rebuild_knowledge_base(
    name: KbPath,
    request: Annotated[RebuildRequest, Body(openapi_examples=body_examples("rebuild_knowledge_base"))],
    response: Response,
    shield: Port,
    who: Caller,
) -> JobView:
    """Restore the vectors of a knowledge base from its stored texts, as a job."""
    return accepted(await shield.rebuild_knowledge_base(who, name, request), response)


@router.post(
    "/{name}/reindex",
    status_code=202,
    responses=accepts_job(*_NAMED, errors.ReindexNotPossible, errors.DependencyMisconfigured, *BODY, *QUOTAS),
)
async def reindex_knowledge_base(
    name: KbPath,
    request: Annotated[ReindexRequest, Body(openapi_examples=body_examples("reindex_knowledge_base"))],
    response: Response,
    shield: Port,
    who: Caller,
) -> JobView:
    """Move a knowledge base to another embedding model, as a job: it answers all the time, and can be rolled back."""
    return accepted(await shield.reindex_knowledge_base(who, name, request), response)


@router.post("/{name}/flip", responses=fails(*_NAMED, errors.NothingToFlip, errors.ReindexIncomplete))
async def flip_knowledge_base(name: KbPath, shield: Port, who: Caller) -> CollectionList:
    """Answer from the collection that a reindex has made ready."""
    return await shield.flip_knowledge_base(who, name)


@router.post("/{name}/rollback", responses=fails(*_NAMED, errors.NothingToFlip, errors.ReindexIncomplete))
async def rollback_knowledge_base(name: KbPath, shield: Port, who: Caller) -> CollectionList:
    """Answer from the collection before the last flip again."""
    return await shield.rollback_knowledge_base(who, name)


@router.post("/{name}/discard", responses=fails(*_NAMED, errors.ReindexNotPossible))
async def discard_collections(name: KbPath, shield: Port, who: Caller) -> CollectionList:
    """Give up all collections but the live one; a rollback is not possible any more."""
    return await shield.discard_collections(who, name)
