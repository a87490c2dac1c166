"""Routes about identity itself: what OAuth clients discover, and what the MCP servers of a fleet ask.

Neither is part of the described API: the first follows RFC 9728 and exists with OIDC only; the second is between our own processes.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shield.api.authentication import INTROSPECT_PATH
from shield.api.dependencies import Introspection
from shield.auth.authenticator import METADATA_PATH, resource_metadata
from shield.auth.bearer import MAX_TOKEN, bearer
from shield.errors import CredentialInvalid, InvalidRequest, Unauthenticated
from shield.settings import Settings


def routes(settings: Settings, introspection: Introspection | None) -> list[Route]:
    """The routes of a server with these settings."""
    found = []
    if settings.auth.mode == "oidc":
        found += [_metadata(settings, METADATA_PATH, ""), _metadata(settings, f"{METADATA_PATH}/mcp", "/mcp")]
    if introspection is not None:
        found.append(_introspect(introspection))
    return found


def _metadata(settings: Settings, path: str, resource: str) -> Route:
    async def metadata(_request: Request) -> JSONResponse:
        return JSONResponse(resource_metadata(settings, resource))

    return Route(path, metadata, methods=["GET"], include_in_schema=False)


def _introspect(introspection: Introspection) -> Route:
    async def introspect(request: Request) -> JSONResponse:
        """Whom a key belongs to; only one of our own processes is told, and only by a token made for this question."""
        token = bearer(request.headers.getlist("authorization"))
        if token is None:
            raise Unauthenticated
        introspection.hop.check_introspection(token)
        key = (await request.body()).decode("ascii", "replace")
        if len(key) > MAX_TOKEN:
            raise InvalidRequest
        try:
            who = await introspection.keys.principal(key)
        except CredentialInvalid:
            return JSONResponse({"active": False})
        bases = None if who.knowledge_bases is None else sorted(who.knowledge_bases)
        return JSONResponse({"active": True, "principal": who.name, "scopes": sorted(who.scopes), "knowledge_bases": bases})

    return Route(INTROSPECT_PATH, introspect, methods=["POST"], include_in_schema=False)
