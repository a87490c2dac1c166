"""One case for every REST route and every MCP tool: how to call it, and whose business it is.

A route or tool without a case fails the proof; so does a case without its route.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from tests.proofs.isolation_world import Target


class Kind(Enum):
    """Whose business a call is."""

    PUBLIC = "everybody's"
    TOKEN = "whoever holds a one-time token, which nobody here does"
    INTERNAL = "our own processes'"
    OWN = "the caller's alone: it names nothing of others"
    OWNED = "the owner's of the thing it names, and nobody else's"
    GRANTED = "theirs who were granted the knowledge base"
    ADMIN = "administrators'"
    MCP = "the tools': each has a case of its own"


@dataclass(frozen=True)
class Case:
    """A call; `make` gives httpx's options for a REST route, or a tool's arguments."""

    kind: Kind
    make: Callable[[Target], dict[str, Any]] = field(default=lambda _target: {})
    reads: bool = True
    """Whether who may only read may do it."""
    spoils: bool = False
    """Whether it takes away what other cases need: then it comes last for those who may."""


def _kb(target: Target) -> dict[str, Any]:
    return {"params": {"knowledge_base": target.kb}}


def _json(body: Callable[[Target], dict[str, Any]]) -> Callable[[Target], dict[str, Any]]:
    return lambda target: {"json": body(target)}


PUBLIC, OWN, OWNED, GRANTED, ADMIN = Kind.PUBLIC, Kind.OWN, Kind.OWNED, Kind.GRANTED, Kind.ADMIN
ROUTES: dict[str, Case] = {
    "GET /": Case(PUBLIC),
    "GET /docs": Case(PUBLIC),
    "GET /docs/errors/{code}": Case(PUBLIC),
    "GET /openapi.json": Case(PUBLIC),
    "GET /healthz": Case(PUBLIC),
    "GET /readyz": Case(PUBLIC),
    "GET /.well-known/oauth-protected-resource": Case(PUBLIC),
    "GET /.well-known/oauth-protected-resource/mcp": Case(PUBLIC),
    "PUT /uploads/{upload_id}/content": Case(Kind.TOKEN, lambda _: {"params": {"token": "guessed"}, "content": b"x"}),
    "POST /auth/introspect": Case(Kind.INTERNAL, lambda _: {"content": b"shk_aaaaaaaa_" + b"a" * 43}),
    "ANY /mcp": Case(Kind.MCP),
    "POST /lightrag/ingest-async": Case(
        GRANTED, _json(lambda t: {"knowledge_base": t.kb, "spec": {"type": "document", "upload_id": t.upload}}), reads=False, spoils=True
    ),
    "POST /lightrag/query": Case(GRANTED, _json(lambda t: {"knowledge_base": t.kb, "query": "Where does the stone lie?", "mode": "naive"})),
    "POST /find": Case(GRANTED, _json(lambda t: {"knowledge_base": t.kb, "query": "third stone"})),
    "POST /notes": Case(GRANTED, _json(lambda t: {"knowledge_base": t.kb, "text": "A pebble.", "source": "note:pebble"}), reads=False),
    "POST /uploads": Case(OWN, lambda _: {"files": {"file": ("a.txt", b"a")}}, reads=False),
    "POST /uploads/announce": Case(OWN, _json(lambda _: {"filename": "a.txt"}), reads=False),
    "GET /jobs": Case(OWN),
    "GET /jobs/{job_id}": Case(OWNED),
    "GET /jobs/{job_id}/events": Case(OWNED),
    "POST /jobs/{job_id}/cancel": Case(OWNED, reads=False, spoils=True),
    "POST /jobs/{job_id}/retry": Case(OWNED, reads=False),
    "GET /documents": Case(GRANTED, _kb),
    "GET /documents/{document_id}": Case(GRANTED, _kb),
    "DELETE /documents/{document_id}": Case(GRANTED, _kb, reads=False, spoils=True),
    "GET /knowledge-bases": Case(OWN),
    "POST /knowledge-bases": Case(ADMIN, _json(lambda t: {"name": t.kb})),
    "DELETE /knowledge-bases/{name}": Case(ADMIN, spoils=True),
    "GET /knowledge-bases/{name}/hash": Case(GRANTED),
    "GET /knowledge-bases/{name}/collections": Case(ADMIN),
    "GET /knowledge-bases/{name}/check": Case(ADMIN),
    "POST /knowledge-bases/{name}/rebuild": Case(ADMIN, _json(lambda _: {})),
    "POST /knowledge-bases/{name}/reindex": Case(ADMIN, _json(lambda _: {"model": "another", "dim": 384})),
    "POST /knowledge-bases/{name}/flip": Case(ADMIN),
    "POST /knowledge-bases/{name}/rollback": Case(ADMIN),
    "POST /knowledge-bases/{name}/discard": Case(ADMIN),
    "POST /ingest-jobs/progress": Case(ADMIN, _json(lambda t: {"uids": [t.job]})),
    "POST /ingest-jobs/cancel": Case(ADMIN, _json(lambda t: {"uids": [t.job]})),
    "GET /ingest-jobs/active": Case(ADMIN),
    "PUT /namespaces/{namespace}/knowledge-bases/{name}": Case(ADMIN, _json(lambda _: {"graph": False})),
    "GET /keys": Case(ADMIN),
    "POST /keys": Case(ADMIN, _json(lambda _: {"scopes": ["admin"]})),
    "DELETE /keys/{key_id}": Case(ADMIN, spoils=True),
    "POST /keys/{key_id}/rotate": Case(ADMIN, _json(lambda _: {})),
}
TOOLS: dict[str, Case] = {
    "crawl_web": Case(GRANTED, lambda t: {"url": "https://example.org/", "knowledge_base": t.kb}, reads=False),
    "ingest_doc": Case(GRANTED, lambda t: {"upload_id": t.upload, "knowledge_base": t.kb}, reads=False, spoils=True),
    "create_upload": Case(OWN, lambda _: {"filename": "a.txt"}, reads=False),
    "qdrant_find": Case(GRANTED, lambda t: {"query": "third stone", "knowledge_base": t.kb}),
    "qdrant_store": Case(GRANTED, lambda t: {"text": "Another pebble.", "source": "note:tool", "knowledge_base": t.kb}, reads=False),
    "lightrag_query": Case(GRANTED, lambda t: {"query": "Where does the stone lie?", "mode": "naive", "knowledge_base": t.kb}),
    "get_job_status": Case(OWNED, lambda t: {"job_id": t.job}),
    "cancel_job": Case(OWNED, lambda t: {"job_id": t.job}, reads=False, spoils=True),
    "list_jobs": Case(OWN, lambda _: {}),
    "list_documents": Case(GRANTED, lambda t: {"knowledge_base": t.kb}),
    "get_document": Case(GRANTED, lambda t: {"document_id": t.document, "knowledge_base": t.kb}),
    "delete_document": Case(GRANTED, lambda t: {"document_id": t.document, "knowledge_base": t.kb}, reads=False, spoils=True),
    "list_knowledge_bases": Case(OWN, lambda _: {}),
}


def routes_of(app: FastAPI) -> set[str]:
    """Every route of an application as `METHOD /path`, described or not."""
    return {name for route in app.router.routes for name in _names(route)}


def _names(route: Any) -> list[str]:
    inner = getattr(route, "original_router", None)
    if inner is not None:
        return [name for below in inner.routes for name in _names(below)]
    if isinstance(route, Mount):
        return [f"MOUNT {route.path}"]
    if not isinstance(route, APIRoute | Route):
        return [repr(route)]
    methods = sorted(set(route.methods or {"ANY"}) - {"HEAD"})
    return [f"{method} {route.path}" for method in methods]
