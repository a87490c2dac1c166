"""Jobs: listing, waiting, watching, cancelling, trying again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from starlette.requests import Request
from starlette.responses import StreamingResponse

from shield import errors
from shield.api.dependencies import MAX_INT, Caller, CursorQuery, JobIdPath, KbQuery, LimitQuery, Port, context_of
from shield.api.responses import QUOTAS, accepted, accepts_job, fails
from shield.api.sse import event_response
from shield.jobs.model import Status
from shield.service.models import JobList, JobView

router = APIRouter(prefix="/jobs", tags=["jobs"])
_MAX_EVENT_ID = 64
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "Send the last one as Last-Event-ID to go on."},
        "event": {"type": "string", "enum": ["snapshot", "progress", "end", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`snapshot` first, then `progress` as it comes, `end` at the end, or `error`; comments keep a silent stream open.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


@router.get("", responses=fails(errors.CursorInvalid, errors.UnknownKnowledgeBase))
async def list_jobs(
    shield: Port,
    who: Caller,
    *,
    status: Annotated[Status | None, Query(description="Only jobs in this state.")] = None,
    code: Annotated[
        str | None,
        Query(
            pattern=r"^[a-z_]{1,32}\.[a-z_]{1,64}$",
            description="Only jobs whose error has this code; `status=failed&code=job.retries_exhausted` is the dead-letter list.",
        ),
    ] = None,
    knowledge_base: KbQuery | None = None,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> JobList:
    """Your jobs, newest first."""
    wanted = status.value if status else None
    return await shield.jobs(who, status=wanted, code=code, knowledge_base=knowledge_base, limit=limit, cursor=cursor)


@router.get("/{job_id}", responses=fails(errors.UnknownJob))
async def get_job(
    job_id: JobIdPath,
    shield: Port,
    who: Caller,
    *,
    wait: Annotated[float, Query(ge=0, le=45, allow_inf_nan=False, description="Seconds to wait for the job's end.")] = 0,
    outcomes_after: Annotated[int, Query(ge=0, le=MAX_INT, description="`next_outcome` of the page before.")] = 0,
    outcomes_limit: LimitQuery = 20,
) -> JobView:
    """A job with its numbers and a page of its per-document outcomes."""
    return await shield.job(who, job_id, wait=wait, outcomes_after=outcomes_after, outcomes_limit=outcomes_limit)


@router.get("/{job_id}/events", response_class=StreamingResponse, responses={**_STREAM, **fails(errors.UnknownJob)})
async def job_events(
    job_id: JobIdPath,
    request: Request,
    shield: Port,
    who: Caller,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="The last id you saw; an unknown one is ignored.")
    ] = None,
) -> StreamingResponse:
    """A job's progress as server-sent events."""
    known = last_event_id if last_event_id and len(last_event_id) <= _MAX_EVENT_ID and last_event_id.isprintable() else None
    return await event_response(shield.events(who, job_id, known), context_of(request).settings.api.keep_alive, request.scope)


@router.post("/{job_id}/cancel", status_code=202, responses=accepts_job(errors.UnknownJob, errors.JobEnded))
async def cancel_job(job_id: JobIdPath, response: Response, shield: Port, who: Caller) -> JobView:
    """Ask a job to stop; it takes effect within a heartbeat."""
    return accepted(await shield.cancel(who, job_id), response)


@router.post("/{job_id}/retry", status_code=202, responses=accepts_job(errors.UnknownJob, errors.JobNotRetryable, *QUOTAS))
async def retry_job(job_id: JobIdPath, response: Response, shield: Port, who: Caller) -> JobView:
    """A new job that starts from what the old one finished."""
    return accepted(await shield.retry(who, job_id), response)
