"""RFC 9457 problem details: the one form in which this API says no.

Whatever goes wrong (a typed error of the port, a field FastAPI refuses, an unknown route, a body that is too large, a
defect of ours) leaves as `application/problem+json` with the code, sentence and advice of a leaf of `shield.errors`. What a
caller sent is never echoed; a defect shows a correlation id, and everything else about it goes to the log only.
"""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from shield.errors import (
    Forbidden,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    RequestTooLarge,
    ShieldError,
    UnknownRoute,
    leaf_errors,
)
from shield.service.validation import invalid_fields

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "shield.request_id"  # key of the ASGI scope


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Address of the error's description.", examples=["/docs/errors/job.not_found"])
    title: str = Field(description="The error's sentence.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened in this case.")
    instance: str = Field(description="This occurrence; the log knows it by the same id.")
    code: str = Field(description="Stable code, `area.reason`.")
    advice: str = Field(description="What to do.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    retry_after: float | None = Field(None, description="Seconds after which a retry makes sense.")
    details: dict[str, Any] | None = Field(None, description="Small facts: limits, names of fields.")


def problem(error: ShieldError, request_id: str) -> Problem:
    """The problem document of an error."""
    public = error.public()
    return Problem(
        type=f"/docs/errors/{error.code}",
        title=error.sentence(),
        status=error.status,
        detail=public.pop("message"),
        instance=f"urn:uuid:{request_id}",
        **public,
    )


def problem_response(error: ShieldError, scope: Scope, headers: dict[str, str] | None = None) -> Response:
    """The answer for an error, with `Retry-After` whenever the error names a time."""
    body = problem(error, scope.get(REQUEST_ID, "")).model_dump(exclude_none=True, mode="json")
    headers = dict(headers or {})
    if error.retry_after is not None:
        headers["Retry-After"] = str(retry_seconds(error.retry_after))
    if isinstance(error, Forbidden) and "scope" in error.details:
        headers.setdefault("WWW-Authenticate", f'Bearer error="insufficient_scope", scope="{error.details["scope"]}"')  # RFC 6750
    return JSONResponse(body, error.status, headers, MEDIA_TYPE)


def retry_seconds(value: float) -> int:
    """A `Retry-After` value: whole seconds, at least one."""
    return max(1, math.ceil(value))


def internal_error(scope: Scope) -> InternalError:
    """What a caller may know about a defect: the id under which the log holds the rest."""
    return InternalError(correlation_id=scope.get(REQUEST_ID, ""))


def install(app: Starlette) -> None:
    """Make every error that `app` knows how to handle leave as a problem."""
    handlers: dict[type[Exception], Any] = {ShieldError: _typed, RequestValidationError: _invalid, HTTPException: _framework}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def install_inner(app: Starlette) -> None:
    """The same for an application inside ours, whose own last resort would answer a defect with a plain text."""
    install(app)
    app.add_exception_handler(Exception, _defect)


async def _typed(request: Request, error: ShieldError) -> Response:
    return problem_response(error, request.scope)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return problem_response(invalid_fields(error.errors()), request.scope)


async def _framework(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == 405 and (allowed := _methods(request)):
        headers["Allow"] = allowed
    return problem_response(_translated(error, request.scope), request.scope, headers)


async def _defect(request: Request, _error: Exception) -> Response:
    return problem_response(internal_error(request.scope), request.scope)


def _translated(error: HTTPException, scope: Scope) -> ShieldError:
    cause = error.__cause__
    if isinstance(cause, ShieldError):  # raised while FastAPI read the body
        return cause
    if error.status_code >= 500:
        return internal_error(scope)
    known: dict[int, ShieldError] = {404: UnknownRoute(), 405: MethodNotAllowed(), 413: RequestTooLarge()}
    return known.get(error.status_code, InvalidRequest("The request body cannot be read."))


def _methods(request: Request) -> str:
    """All methods of the path, which may be spread over several routes."""
    path = getattr(request.scope.get("route"), "path", "")
    described: dict[str, Any] = request.app.openapi()["paths"].get(path, {}) if isinstance(request.app, FastAPI) else {}
    return ", ".join(sorted(method.upper() for method in described))


def examples() -> dict[str, Any]:
    """Every error as an OpenAPI example, by code."""
    nobody = "00000000-0000-4000-8000-000000000000"
    return {
        code: {"summary": error.sentence(), "value": problem(error(), nobody).model_dump(exclude_none=True)}
        for code, error in leaf_errors().items()
    }


def problems(*errors: type[ShieldError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these errors, grouped by status, each code an example."""
    grouped: dict[int, list[type[ShieldError]]] = {}
    for error in errors:
        grouped.setdefault(error.status, []).append(error)
    return {status: _response(grouped[status]) for status in sorted(grouped)}


def _response(errors: list[type[ShieldError]]) -> dict[str, Any]:
    examples = {error.code: {"$ref": f"#/components/examples/{error.code}"} for error in errors}
    response: dict[str, Any] = {
        "description": " ".join(f"`{error.code}`: {error.sentence()}" for error in errors),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}},
    }
    if any(error.retryable for error in errors):
        response["headers"] = {"Retry-After": {"description": "Seconds to wait, when known.", "schema": {"type": "integer"}}}
    return response
