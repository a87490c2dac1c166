"""What the routes ask for: the port, who is calling, and the shared parameter types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Header, Path, Query
from pydantic import AfterValidator, StringConstraints
from starlette.requests import HTTPConnection, Request

from shield.auth import Principal
from shield.auth.authenticator import caller_of
from shield.auth.hop import HopTokens
from shield.auth.keys import KeyVerifier
from shield.auth.local import is_local_caller
from shield.service.models import IdempotencyKey
from shield.service.port import Shield
from shield.settings import Settings
from shield.telemetry.traces import traceparent

MAX_INT = 2**31 - 1  # what PostgreSQL's integer holds
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

PrincipalOf = Callable[[HTTPConnection], Awaitable[Principal]]
"""Who a request acts for; raises `Unauthenticated` or `CredentialInvalid`. The seam for keys and tokens."""


@dataclass(frozen=True)
class Introspection:
    """What an orchestrator answers the MCP servers of its fleet with: whom a key belongs to."""

    keys: KeyVerifier
    hop: HopTokens


@dataclass(frozen=True)
class Context:
    """What the application holds for its routes, as `app.state.context`."""

    shield: Shield
    settings: Settings
    introspection: Introspection | None = None


def context_of(request: Request) -> Context:
    """The application's context."""
    return cast("Context", request.app.state.context)


async def _shield(request: Request) -> Shield:
    return context_of(request).shield


async def _principal(request: Request) -> Principal:
    return caller_of(request.scope)


async def _local(request: Request) -> bool:
    peer = request.client.host if request.client else None
    return is_local_caller(context_of(request).settings, peer, proxied=any(name in request.headers for name in _PROXY_HEADERS))


async def _traceparent(_request: Request) -> str | None:
    return traceparent()  # of the request's own span, or, where nothing is recorded, the caller's; W3C: an unreadable one is ignored


def _no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain NUL")
    return value


Port = Annotated[Shield, Depends(_shield)]
Caller = Annotated[Principal, Depends(_principal)]
LocalCaller = Annotated[bool, Depends(_local)]
Traceparent = Annotated[str | None, Depends(_traceparent)]

Text = Annotated[str, AfterValidator(_no_nul)]
JobIdPath = Annotated[UUID, Path(description="The job's id.")]
DocumentIdPath = Annotated[UUID, Path(description="The document's id.")]
KbPath = Annotated[Text, StringConstraints(min_length=1, max_length=40), Path(description="The knowledge base's name.")]
KbQuery = Annotated[Text, StringConstraints(min_length=1, max_length=40), Query(description="The knowledge base's name.")]
CursorQuery = Annotated[
    Annotated[Text, StringConstraints(max_length=2048)] | None,
    Query(description="`next_cursor` of the page before; nothing for the first."),
]
LimitQuery = Annotated[int, Query(ge=1, le=100, description="Most items of a page.")]
KeyHeader = Annotated[
    IdempotencyKey | None,
    Header(
        alias="Idempotency-Key", description="Repeating a request with the same key gives the same job; 1-128 visible ASCII characters."
    ),
]
