"""Knowledge bases: listing, making, deleting, fingerprints."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response

from shield import errors
from shield.api.dependencies import Caller, KbPath, Port
from shield.api.examples import body_examples
from shield.api.responses import BODY, QUOTAS, accepted, accepts_job, fails
from shield.service.models import JobView, KnowledgeBaseCreate, KnowledgeBaseHash, KnowledgeBaseList, KnowledgeBaseView

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
