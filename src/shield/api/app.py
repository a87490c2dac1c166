"""The orchestrator's REST API: thin routes over the `Shield` port, one router a resource.

`create_app` puts the layers together: boundary, Host and Origin guard, body limits, routes. The MCP application, if given, answers at `/mcp`
under the same layers and lives and dies with this one (its session manager starts in its lifespan; without it every call
fails with "Task group is not initialized").
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from shield import __version__
from shield.api import problems
from shield.api.admission import Admission
from shield.api.authentication import Authentication
from shield.api.dependencies import Context, Introspection, PrincipalOf
from shield.api.middleware import BodyLimit, Boundary, HostGuard, HttpMetrics
from shield.api.routes import docs, documents, health, identity, ingest, ingest_jobs, jobs, keys, knowledge_bases, search, uploads
from shield.auth.authenticator import Challenge
from shield.auth.binding import check_binding
from shield.auth.hosts import HostPolicy
from shield.auth.local import local_principal
from shield.errors import ConfigInvalid
from shield.service.port import Shield
from shield.settings import Settings

MCP_PATH = "/mcp"
_ROUTERS = (ingest, search, uploads, jobs, documents, knowledge_bases, ingest_jobs, keys, health, docs)
_DESCRIPTION = "Web sites and documents in, cited answers out. Long work is a job: 202, then poll or watch it."


def create_app(
    shield: Shield,
    settings: Settings,
    metrics: HttpMetrics | None = None,
    mcp_app: Starlette | None = None,
    *,
    principal_of: PrincipalOf = local_principal,
    introspection: Introspection | None = None,
    samples: Path | None = None,
    rest: bool = True,
) -> FastAPI:
    """The application.

    Args:
        shield: answers every route.
        settings: names, limits and durations.
        metrics: counts requests by route template.
        mcp_app: FastMCP's `http_app(path="/mcp", stateless_http=True)`; host and origin are checked here, so its own check stays off.
        principal_of: who a request acts for.
        introspection: answers the MCP servers of a fleet, which ask whom a key belongs to; without it that route does not exist.
        samples: directory of a static site to serve at `/samples/`.
        rest: serve the REST API; without it only `/mcp`, liveness and readiness answer.

    Raises:
        ConfigInvalid: the settings would serve strangers, or name hosts that cannot be read.
    """
    check_binding(settings)
    if settings.auth.mode != "none" and principal_of is local_principal:
        raise ConfigInvalid(f"SHIELD_AUTH_MODE={settings.auth.mode} needs someone who checks credentials.")
    app = FastAPI(
        title="HX-Citadel Shield",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(mcp_app),
        generate_unique_id_function=_operation_id,
        middleware=[
            Middleware(Boundary, metrics=metrics),
            Middleware(HostGuard, policy=HostPolicy.of(settings)),
            Middleware(BodyLimit, settings=settings),
            Middleware(Authentication, principal_of=principal_of, challenge=Challenge.of(settings)),
            Middleware(Admission, settings=settings.api, model=settings.llm.provider != "none" or not rest),
        ],
    )
    app.state.context = Context(shield, settings, introspection)
    problems.install(app)
    for module in _ROUTERS if rest else (health,):
        app.include_router(module.router)
    app.router.routes.extend(identity.routes(settings, introspection))
    if mcp_app is not None:
        problems.install_inner(mcp_app)
        app.router.routes.append(Route(MCP_PATH, mcp_app, include_in_schema=False))  # a route, so that unknown paths stay ours
    if samples is not None:
        app.router.routes.append(Mount("/samples", StaticFiles(directory=samples, html=True)))
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _lifespan(mcp_app: Starlette | None) -> Any:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if mcp_app is None:
            yield
            return
        async with mcp_app.router.lifespan_context(mcp_app):
            yield

    return lifespan


def _operation_id(route: APIRoute) -> str:
    return route.name


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = schema["components"]["schemas"]
        schema["components"]["examples"] = problems.examples()
        _describe_credentials(app, schema)
        schemas["Problem"] = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own error form, which this API never sends
            schemas.pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema


def _describe_credentials(app: FastAPI, schema: dict[str, Any]) -> None:
    """Say which operations need a credential, on a server that asks for one."""
    if app.state.context.settings.auth.mode == "none":
        return
    schema["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "description": "An API key or access token."}}
    for item in schema["paths"].values():
        for operation in item.values():
            if "401" in operation["responses"]:
                operation["security"] = [{"bearer": []}]
