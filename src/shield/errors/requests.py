"""Requests and queries that are not what they should be."""

from __future__ import annotations

from shield.errors.base import Exit, Fault, ShieldError


class InvalidRequest(ShieldError):
    """The request has a field that is missing, unknown or out of range."""

    code, status, exit_code = "request.invalid", 422, Exit.USAGE
    advice = "Correct the named field; docs/API_REFERENCE.md lists every field with its limits."


class RequestTooLarge(ShieldError):
    """The request body is larger than allowed."""

    code, status = "request.too_large", 413
    advice = "Send large files through POST /uploads (or the create_upload tool) and pass the upload id."


class RequestTimeout(ShieldError):
    """The request body did not arrive in time."""

    code, status, retryable = "request.timeout", 408, True
    advice = "Send the request again over a steadier connection."


class UnknownRoute(ShieldError):
    """There is nothing at this address."""

    code, status = "request.not_found", 404
    advice = "See /docs or docs/API_REFERENCE.md for the routes of this server."


class UnknownTool(ShieldError):
    """There is no tool of this name."""

    code, status = "request.tool_not_found", 404
    advice = "List the tools of this server with tools/list."


class MethodNotAllowed(ShieldError):
    """This address does not answer to that method."""

    code, status = "request.method_not_allowed", 405
    advice = "See /docs or docs/API_REFERENCE.md for the methods of this route."


class HostRefused(ShieldError):
    """The Host header names a host this server does not serve."""

    code, status = "request.host_refused", 421
    advice = "Use the server's own address, or add the name to SHIELD_ALLOWED_HOSTS."


class OriginRefused(ShieldError):
    """The Origin header names a web site that may not call this server."""

    code, status = "request.origin_refused", 403
    advice = "Call from the server's own origin, or add the origin to SHIELD_ALLOWED_ORIGINS."


class CursorInvalid(ShieldError):
    """The cursor is unknown, has expired, or belongs to another query."""

    code, status = "request.cursor_invalid", 400
    advice = "Repeat the query without a cursor; cursors live ten minutes and fit only the query that made them."


class IdempotencyMismatch(ShieldError):
    """This idempotency key was used before with another body."""

    code, status = "idempotency.mismatch", 422
    advice = "Use a new Idempotency-Key for a new request, or repeat the first request unchanged."


class QueryTooShort(ShieldError):
    """The query has no word to search for."""

    code, status = "query.too_short", 422
    advice = "Ask with at least one word of three letters."


class QueryTimeout(ShieldError):
    """The query took too long and was stopped."""

    code, status, retryable, fault = "query.timeout", 504, True, Fault.SERVER
    advice = "Ask a narrower question, or use mode `naive`."
