"""For the operator of a cluster: the rows of its IngestJobs, many at once, and the knowledge bases of its namespaces."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Path, Query

from shield import errors
from shield.api.dependencies import Caller, KbPath, Port
from shield.api.examples import body_examples
from shield.api.responses import BODY, fails
from shield.service.models import (
    ActiveIngestJobs,
    IngestJobList,
    IngestJobsCancelled,
    IngestJobUids,
    NamespaceBase,
    NamespaceBaseView,
)
from shield.service.models.operator import MOST, MOST_NAMESPACES, Namespace, Uid

router = APIRouter(tags=["operator"])


@router.post("/ingest-jobs/progress", responses=fails(*BODY))
async def ingest_job_progress(
    request: Annotated[IngestJobUids, Body(openapi_examples=body_examples("ingest_job_progress"))], shield: Port, who: Caller
) -> IngestJobList:
    """Where the rows of these IngestJobs stand; a uid without a row is left out."""
    return await shield.ingest_job_progress(who, request)


@router.post("/ingest-jobs/cancel", responses=fails(*BODY))
async def cancel_ingest_jobs(
    request: Annotated[IngestJobUids, Body(openapi_examples=body_examples("cancel_ingest_jobs"))], shield: Port, who: Caller
) -> IngestJobsCancelled:
    """Cancel the rows of these IngestJobs that have not ended; doing it again changes nothing."""
    return await shield.cancel_ingest_jobs(who, request)


@router.get("/ingest-jobs/active", responses=fails())
async def active_ingest_jobs(
    shield: Port,
    who: Caller,
    *,
    after: Annotated[Uid | Literal[""] | None, Query(description="`next` of the page before; nothing for the first.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="Most uids of a page.")] = MOST,
    namespaces: Annotated[
        list[Namespace] | None, Query(max_length=MOST_NAMESPACES, description="Only those of these namespaces. Default: of all.")
    ] = None,
) -> ActiveIngestJobs:
    """The IngestJobs whose rows have not ended, in order."""
    return await shield.active_ingest_jobs(who, after=after, limit=limit, namespaces=namespaces)


@router.put(
    "/namespaces/{namespace}/knowledge-bases/{name}",
    responses=fails(
        *BODY,
        errors.KnowledgeBaseNameInvalid,
        errors.KnowledgeBaseConflict,
        errors.KnowledgeBaseDeleting,
        errors.DependencyMisconfigured,
    ),
)
async def ensure_namespace_base(
    namespace: Annotated[Namespace, Path(description="The namespace, which owns the knowledge base.")],
    name: KbPath,
    request: Annotated[NamespaceBase, Body(openapi_examples=body_examples("ensure_namespace_base"))],
    shield: Port,
    who: Caller,
) -> NamespaceBaseView:
    """The knowledge base of a namespace, made if it is missing; of one that exists only the description is changed."""
    return await shield.ensure_namespace_base(who, namespace, name, request)
