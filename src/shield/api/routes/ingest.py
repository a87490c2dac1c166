"""Intake: the one route that accepts web sites and documents as jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response

from shield import errors
from shield.api.dependencies import Caller, KeyHeader, LocalCaller, Port, Traceparent
from shield.api.examples import body_examples
from shield.api.responses import BODY, QUOTAS, accepted, accepts_job
from shield.service.models import IngestRequest, JobView

router = APIRouter(tags=["ingest"])
_FAILURES = (
    *BODY,
    *QUOTAS,
    errors.IdempotencyMismatch,
    errors.UnknownKnowledgeBase,
    errors.KnowledgeBaseNameInvalid,
    errors.UrlInvalid,
    errors.EgressDenied,
    errors.EgressPortDenied,
    errors.DocumentRootRefused,
    errors.DocumentTooLarge,
    errors.DocumentTypeUnsupported,
    errors.DocumentEmpty,
    errors.UnknownUpload,
    errors.UploadIncomplete,
    errors.InlineContentInvalid,
)


@router.post("/lightrag/ingest-async", status_code=202, responses=accepts_job(*_FAILURES))
async def ingest_async(
    request: Annotated[IngestRequest, Body(openapi_examples=body_examples("ingest_async"))],
    response: Response,
    *,
    shield: Port,
    who: Caller,
    local: LocalCaller,
    traceparent: Traceparent,
    key: KeyHeader = None,
) -> JobView:
    """Crawl a web site or ingest a document; answers at once with a job."""
    job = await shield.ingest(who, request, idempotency_key=key, traceparent=traceparent, local_caller=local)
    return accepted(job, response)
