"""The routes hand over what they were given, and answer what the port answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from shield.api.app import create_app
from shield.api.examples import BODIES, PARAMETERS
from shield.auth import LOCAL
from shield.service.models import JobView
from shield.settings import load
from tests.unit.api.test_problems import assert_problem, client_of
from tests.unit.stand_in import DOCUMENT, JOB, StandIn, a_job

CRAWL = BODIES["ingest_async"]


async def test_intake_answers_202_with_where_and_when_to_poll(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    response = await client.post("/lightrag/ingest-async", json=CRAWL, headers={"Idempotency-Key": "key-1"})
    assert response.status_code == 202
    assert response.headers["location"] == f"/jobs/{JOB}"
    assert response.headers["retry-after"] == "2"  # 1.5 s, in the whole seconds HTTP knows
    assert JobView.model_validate(response.json()) == a_job()
    assert stand_in.calls[0][1]["idempotency_key"] == "key-1"
    assert stand_in.calls[0][1]["who"] == LOCAL


@pytest.mark.parametrize("key", ["", " ", "a b", "a" * 129, "ä", "a\tb"])
async def test_an_idempotency_key_is_visible_ascii_of_bounded_length(key: str, client: httpx.AsyncClient, stand_in: StandIn) -> None:
    response = await client.post("/lightrag/ingest-async", json=CRAWL, headers={b"Idempotency-Key": key.encode("latin-1")})
    assert "Idempotency-Key" in assert_problem(response, "request.invalid")["detail"]
    assert stand_in.calls == []


async def test_the_longest_idempotency_key_passes(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    await client.post("/lightrag/ingest-async", json=CRAWL, headers={"Idempotency-Key": "~" * 128})
    assert stand_in.calls[0][1]["idempotency_key"] == "~" * 128


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(("sent", "given"), [(TRACE, TRACE), ("nonsense", None), (TRACE + "\u00e9", None), (None, None)])
async def test_a_readable_traceparent_is_handed_on(
    sent: str | None, given: str | None, client: httpx.AsyncClient, stand_in: StandIn
) -> None:
    headers: Any = {"traceparent": sent.encode("latin-1")} if sent else {}
    await client.post("/lightrag/ingest-async", json=CRAWL, headers=headers)
    assert stand_in.calls[0][1]["traceparent"] == given


@pytest.mark.parametrize(("headers", "local"), [({}, True), ({"X-Forwarded-For": "192.0.2.1"}, False), ({"Forwarded": "for=x"}, False)])
async def test_a_proxied_caller_is_not_local(headers: dict[str, str], local: bool, client: httpx.AsyncClient, stand_in: StandIn) -> None:
    await client.post("/lightrag/ingest-async", json=CRAWL, headers=headers)
    assert stand_in.calls[0][1]["local_caller"] is local


async def test_a_caller_from_elsewhere_is_not_local(stand_in: StandIn) -> None:
    app = create_app(stand_in, load())
    transport = httpx.ASGITransport(app, client=("192.0.2.9", 5))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        await client.post("/lightrag/ingest-async", json=CRAWL)
    assert stand_in.calls[0][1]["local_caller"] is False


async def test_every_example_of_the_documentation_works(app: FastAPI, client: httpx.AsyncClient) -> None:
    tried = set()
    for path, item in app.openapi()["paths"].items():
        for method, operation in item.items():
            name = operation["operationId"]
            query = {p["name"]: PARAMETERS[p["name"]] for p in operation.get("parameters", []) if p["required"] and p["in"] == "query"}
            files = {"file": ("manual.pdf", b"%PDF-1.7")} if name == "upload" else None
            response = await client.request(method, path.format(**PARAMETERS), params=query, json=BODIES.get(name), files=files)
            assert str(response.status_code) in operation["responses"], (name, response.text)
            assert response.is_success, (name, response.text)
            if response.status_code == 202:
                assert response.headers["location"].startswith("/jobs/")
            tried.add(name)
    assert set(BODIES) <= tried


async def test_parameters_reach_the_port(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    await client.get("/jobs", params={"status": "failed", "knowledge_base": "kb", "limit": 7, "cursor": "c"})
    await client.get(f"/jobs/{JOB}", params={"wait": 1.5, "outcomes_after": 20, "outcomes_limit": 5})
    await client.get("/documents", params={"knowledge_base": "kb", "source_prefix": "https://a/", "limit": 3, "cursor": "c"})
    await client.get(f"/documents/{DOCUMENT}", params={"knowledge_base": "kb", "offset": 10, "max_tokens": 64})
    await client.delete(f"/documents/{DOCUMENT}", params={"knowledge_base": "kb"})
    given = [{k: v for k, v in arguments.items() if k != "who"} for _, arguments in stand_in.calls]
    assert given == [
        {"status": "failed", "code": None, "knowledge_base": "kb", "limit": 7, "cursor": "c"},
        {"job_id": JOB, "wait": 1.5, "outcomes_after": 20, "outcomes_limit": 5},
        {"knowledge_base": "kb", "source_prefix": "https://a/", "limit": 3, "cursor": "c"},
        {"document_id": DOCUMENT, "knowledge_base": "kb", "offset": 10, "max_tokens": 64},
        {"document_id": DOCUMENT, "knowledge_base": "kb"},
    ]


async def test_liveness_touches_nothing(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    stand_in.raises = RuntimeError("everything is broken")
    assert (await client.get("/healthz")).json()["status"] == "ok"
    assert stand_in.calls == []


@pytest.mark.parametrize(("status", "http"), [("ok", 200), ("degraded", 200), ("down", 503)])
async def test_readiness_is_503_only_when_down(status: str, http: int, client: httpx.AsyncClient, stand_in: StandIn) -> None:
    stand_in.health_status = status
    response = await client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (http, status)


async def test_people_who_open_the_address_find_the_description(client: httpx.AsyncClient) -> None:
    response = await client.get("/", follow_redirects=True)
    assert response.url.path == "/docs"
    assert "/lightrag/ingest-async" in response.text
    assert "<script" not in response.text
    assert "http://" not in response.text.replace("http://127.0.0.1", "")


async def test_the_lifespan_of_the_mcp_application_is_run() -> None:
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette

    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        seen.append("up")
        yield
        seen.append("down")

    app = create_app(StandIn(), load(), mcp_app=Starlette(lifespan=lifespan))
    async with app.router.lifespan_context(app):
        assert seen == ["up"]
        async with client_of(app) as client:
            assert (await client.get("/healthz")).is_success
    assert seen == ["up", "down"]
