"""202 answers, and the errors each group of routes can give, for the routes and for OpenAPI."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from shield import errors
from shield.api.problems import problems, retry_seconds
from shield.errors import ShieldError
from shield.service.models import JobView

OPEN: tuple[type[ShieldError], ...] = (
    errors.HostRefused,
    errors.OriginRefused,
    errors.InvalidRequest,
    errors.DatabaseUnavailable,
    errors.InternalError,
)
"""What every route may answer."""

IDENTIFIED: tuple[type[ShieldError], ...] = (
    errors.Unauthenticated,
    errors.CredentialInvalid,
    errors.Forbidden,
    errors.IdentityUnavailable,
)
"""What every route that asks who is calling may answer."""

BODY: tuple[type[ShieldError], ...] = (errors.RequestTooLarge, errors.RequestTimeout)
"""What every route with a body may answer."""

DEPENDENCIES: tuple[type[ShieldError], ...] = (
    errors.CircuitOpen,
    errors.DependencyUnavailable,
    errors.DependencyMisconfigured,
    errors.DependencyThrottled,
    errors.DependencyRejected,
)
"""What routes that embed, search or generate may answer."""

QUOTAS: tuple[type[ShieldError], ...] = (errors.QueueFull, errors.TooManyPending, errors.BytesQuotaExceeded)
"""What routes that accept jobs may answer."""

_JOB_LINKS = {
    "job": {"operationId": "get_job", "parameters": {"job_id": "$response.body#/job_id"}},
    "events": {"operationId": "job_events", "parameters": {"job_id": "$response.body#/job_id"}},
    "cancel": {"operationId": "cancel_job", "parameters": {"job_id": "$response.body#/job_id"}},
}


def fails(*more: type[ShieldError], identified: bool = True) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses: the common errors and these; `identified` = the route asks who is calling."""
    return problems(*OPEN, *(IDENTIFIED if identified else ()), *more)


def accepts_job(*more: type[ShieldError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of a route that answers 202 with a job."""
    accepted = {
        "description": "Accepted: the job survives any crash from here on. Poll `Location`, or read its events.",
        "headers": {
            "Location": {
                "description": "Where the job's state is.",
                "required": True,
                "schema": {"type": "string", "format": "uri-reference"},
            },
            "Retry-After": {
                "description": "Seconds until polling makes sense.",
                "required": True,
                "schema": {"type": "integer", "minimum": 1},
            },
        },
        "links": _JOB_LINKS,
    }
    return {202: accepted, **fails(*more)}


def accepted(job: JobView, response: Response) -> JobView:
    """The 202 answer: where to poll and when, and the job as it stands."""
    response.headers["Location"] = f"/jobs/{job.job_id}"
    response.headers["Retry-After"] = str(retry_seconds(job.poll_after_seconds))
    return job
