"""What surrounds every request: an outer boundary, the Host and Origin guard, and the limits of a body.

All three are pure ASGI and stand before routing, so they hold for `/mcp`, `/docs` and unknown routes alike, and they stream:
nothing here keeps a body in memory.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Protocol
from uuid import uuid4

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shield.api.problems import REQUEST_ID, internal_error, problem_response
from shield.auth.hosts import HostPolicy
from shield.errors import RequestTimeout, RequestTooLarge, ShieldError
from shield.settings import KiB, Settings
from shield.telemetry.traces import span_from

_LOG = logging.getLogger(__name__)
_PROBES = frozenset({"/healthz", "/readyz"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UPLOAD = re.compile(r"/uploads(?:/[^/]+/content)?")
_UPLOAD_SLACK = 64 * KiB  # boundary and part headers of a multipart body
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class HttpMetrics(Protocol):
    """Where finished requests are counted."""

    def http_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request; `route` is a template, never a path."""


class Boundary:
    """The outermost layer: gives each request an id, sets the security headers, counts, and turns defects into problems."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics | None = None) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[REQUEST_ID] = str(uuid4())
        status, complete, began = 0, False, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers["X-Request-Id"] = scope[REQUEST_ID]
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            with _span(scope) as span:
                await self._app(scope, receive, sending)
                _name(span, scope, status)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except Exception as error:  # the request boundary: whatever happened, the caller gets a problem and no internals
            known = error if isinstance(error, ShieldError) else None
            if known is None:
                _LOG.exception("request failed", extra={"correlation_id": scope[REQUEST_ID]})
            if complete:
                return
            if status:  # too late for a problem: let the server cut the connection, so that the answer cannot pass for whole
                raise
            await problem_response(known or internal_error(scope), scope)(scope, receive, sending)
        finally:
            if self._metrics is not None:
                route = getattr(scope.get("route"), "path", None) or "unmatched"
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._metrics.http_request(route, method, status, time.perf_counter() - began)


def _span(scope: Scope) -> AbstractContextManager[Span]:
    """A server span that goes on with the caller's trace; probes are not worth one."""
    if scope["path"] in _PROBES:
        return nullcontext(INVALID_SPAN)
    method = scope["method"] if scope["method"] in _METHODS else "other"
    return span_from(Headers(scope=scope).get("traceparent"), method, {"http.request.method": method}, SpanKind.SERVER)


def _name(span: Span, scope: Scope, status: int) -> None:
    """Name it by the route's template, which is known only now; never by the path."""
    route = getattr(scope.get("route"), "path", None) or "unmatched"
    span.update_name(f"{scope['method'] if scope['method'] in _METHODS else 'other'} {route}")
    span.set_attributes({"http.route": route, "http.response.status_code": status})


class HostGuard:
    """Refuses requests that name a foreign host or come from a foreign web page (see `shield.auth.hosts`)."""

    def __init__(self, app: ASGIApp, policy: HostPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            _, port = scope.get("server") or ("", None)
            self._policy.check(headers.getlist("host"), headers.getlist("origin"), scope["scheme"], port)
        await self._app(scope, receive, send)


class BodyLimit:
    """Bounds each body in bytes and in time, whether its length was announced or not.

    Once a body is refused, the answer is ours, whatever the application makes of the broken read. An answer that is given
    before the body has come waits a moment (`linger`) for the rest and drops it: closing a connection with unread data
    resets it, and the sender would never see why.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._limits = settings.api
        self._max_upload = settings.file.max_bytes + _UPLOAD_SLACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, self._limit(scope), self._limits.body_idle, self._limits.body_timeout)
        answered = replaced = False

        async def sending(message: Message) -> None:
            nonlocal answered, replaced
            if message["type"] == "http.response.start":
                await body.linger(self._limits.linger)
                answered = True
                if body.refused is not None:
                    replaced = True
                    await problem_response(body.refused, scope, {"Connection": "close"})(scope, receive, send)
            if not replaced:
                await send(message)

        try:
            body.check_length()
            await self._app(scope, body.receive, sending)
        except ShieldError as error:
            if answered or error is not body.refused:
                raise
            await body.linger(self._limits.linger)
            await problem_response(error, scope, {"Connection": "close"})(scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        upload = scope["method"] in ("POST", "PUT") and _UPLOAD.fullmatch(scope["path"])
        return self._max_upload if upload else self._limits.max_body_bytes


class _Body:
    """One request's body on its way in."""

    def __init__(self, scope: Scope, receive: Receive, limit: int, idle: timedelta, total: timedelta) -> None:
        headers = Headers(scope=scope)
        self._length = headers.get("content-length", "")
        self._receive = receive
        self._limit = limit
        self._idle = idle.total_seconds()
        self._deadline = time.monotonic() + total.total_seconds()
        self._read = 0
        self._complete = self._length in ("", "0") and "transfer-encoding" not in headers
        self._waits_for_us = "expect" in headers  # `100-continue`: a refusal saves the sender the whole body
        self.refused: ShieldError | None = None

    def check_length(self) -> None:
        """Refuse an announced length above the limit before a byte is read."""
        if self._length.isdecimal() and int(self._length) > self._limit:
            raise self._refuse(RequestTooLarge(limit_bytes=self._limit))

    async def receive(self) -> Message:
        """The next message, counted and timed until the body is complete; later ones (a disconnect) may take for ever."""
        if self.refused is not None:
            raise self.refused
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(min(self._idle, max(0.0, self._deadline - time.monotonic()))):
                message = await self._next()
        except TimeoutError as error:
            raise self._refuse(RequestTimeout()) from error
        if self._read > self._limit:
            raise self._refuse(RequestTooLarge(limit_bytes=self._limit))
        return message

    async def linger(self, limit: timedelta) -> None:
        """Drop what is still to come, for at most `limit`."""
        if self._complete or self._waits_for_us:
            return
        try:
            async with asyncio.timeout(limit.total_seconds()):
                while not self._complete:
                    await self._next()
        except TimeoutError:
            pass  # a slow sender has had its chance

    async def _next(self) -> Message:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def _refuse(self, error: ShieldError) -> ShieldError:
        self.refused = error
        return error
