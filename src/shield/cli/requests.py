"""From options to request models; a wrong option is the same error as a wrong request."""

from __future__ import annotations

from typing import Any, TypeVar

import typer
from pydantic import ValidationError

from shield.service.models import FindRequest, IngestRequest, KeyCreate, KeyRotate, KnowledgeBaseCreate, Model, QueryRequest, ReindexRequest
from shield.service.validation import invalid_request

M = TypeVar("M", bound=Model)


def ingest_request(kb: str, spec: dict[str, Any], *, webhook: str | None = None, budget: int | None = None) -> IngestRequest:
    """The body of an intake."""
    more = {
        "webhook": None if webhook is None else {"url": webhook},
        "budget": None if budget is None else {"tokens": budget},
    }
    return _build(IngestRequest, {"knowledge_base": kb, "spec": spec, **more})


def find_request(query: str, kb: str, limit: int, filters: list[str] | None) -> FindRequest:
    """The body of a search."""
    return _build(FindRequest, {"query": query, "knowledge_base": kb, "limit": limit, "filters": pairs(filters, "--filter field=value")})


def query_request(question: str, kb: str, mode: str, filters: list[str] | None) -> QueryRequest:
    """The body of a question."""
    return _build(QueryRequest, {"query": question, "knowledge_base": kb, "mode": mode, "filters": pairs(filters, "--filter field=value")})


def base_request(name: str, description: str, graph: bool) -> KnowledgeBaseCreate:
    """The body that makes a knowledge base."""
    return _build(KnowledgeBaseCreate, {"name": name, "description": description, "graph": graph})


def key_request(values: dict[str, Any], *, everywhere: bool) -> KeyCreate:
    """The body that makes an API key; `everywhere`: for all knowledge bases."""
    return _build(KeyCreate, {**values, "knowledge_bases": None} if everywhere else values)


def rotation_request(grace_seconds: int | None) -> KeyRotate:
    """The body that replaces an API key."""
    return _build(KeyRotate, {"grace_seconds": grace_seconds})


def reindex_request(values: dict[str, Any]) -> ReindexRequest:
    """The body of a reindex."""
    return _build(ReindexRequest, values)


def pairs(items: list[str] | None, form: str) -> dict[str, str]:
    """`key=value` options as a dictionary.

    Raises:
        typer.BadParameter: one has no `=`; `form` says how it should look.
    """
    parts = [item.partition("=") for item in items or []]
    if any(not sign for _, sign, _ in parts):
        raise typer.BadParameter(f"write it as {form}")
    return {key: value for key, _, value in parts}


def _build(model: type[M], values: dict[str, Any]) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid_request(error) from error
