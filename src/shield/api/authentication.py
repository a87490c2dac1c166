"""Who is calling is asked once, before routing, for every address that is not listed here as public.

A new route is therefore closed until someone opens it, `/mcp` and unknown addresses included, and nobody without a credential makes the
server read a body or look anything up. A refusal is a problem with status 401 and `WWW-Authenticate`, which is what MCP and OAuth
clients look for. It is answered below the body limits, so that a sender in the middle of a body sees it.
"""

from __future__ import annotations

import re

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from shield.api.dependencies import PrincipalOf
from shield.api.problems import problem_response
from shield.auth.authenticator import METADATA_PATH, PRINCIPAL, Challenge
from shield.errors import ShieldError

INTROSPECT_PATH = "/auth/introspect"
_PAGES = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz", METADATA_PATH, f"{METADATA_PATH}/mcp"})
_FOLDERS = re.compile(r"/docs/errors/[^/]+|/samples(/.*)?")
_OWN_CREDENTIAL = {"PUT": re.compile(r"/uploads/[^/]+/content"), "POST": re.compile(re.escape(INTROSPECT_PATH))}
"""Routes that check a credential of their own: the one-time token of an upload, the token between our processes."""


def is_public(method: str, path: str) -> bool:
    """Whether anybody may call this."""
    if method in {"GET", "HEAD"}:
        return path in _PAGES or _FOLDERS.fullmatch(path) is not None
    own = _OWN_CREDENTIAL.get(method)
    return own is not None and own.fullmatch(path) is not None


class Authentication:
    """Leaves the principal in the scope of each request that is not public, or refuses it."""

    def __init__(self, app: ASGIApp, principal_of: PrincipalOf, challenge: Challenge) -> None:
        self._app = app
        self._principal_of = principal_of
        self._challenge = challenge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_public(scope["method"], scope["path"]):
            try:
                scope[PRINCIPAL] = await self._principal_of(HTTPConnection(scope))
            except ShieldError as error:
                await problem_response(error, scope, self._challenge.headers(error, scope["path"]))(scope, receive, send)
                return
        await self._app(scope, receive, send)
