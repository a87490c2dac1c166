"""Every way to fail leaves as one form, and never with internals in it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shield.api.app import create_app
from shield.errors import CircuitOpen, ShieldError, UnknownJob, leaf_errors
from shield.settings import Settings, load
from tests.unit.stand_in import JOB, StandIn

SECRET = "host=10.0.0.5 password=hunter2"


def assert_problem(response: httpx.Response, code: str) -> dict[str, Any]:
    leaf = leaf_errors()[code]
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert response.status_code == body["status"] == leaf.status
    assert body["code"] == code
    assert body["type"] == f"/docs/errors/{code}"
    assert body["title"] == leaf.sentence()
    assert body["advice"] == leaf.advice
    assert body["retryable"] is leaf.retryable
    assert body["instance"] == f"urn:uuid:{response.headers['x-request-id']}"
    return body


@pytest.mark.parametrize("code", leaf_errors())
async def test_every_error_of_the_port_becomes_its_problem(code: str, client: httpx.AsyncClient, stand_in: StandIn) -> None:
    stand_in.raises = leaf_errors()[code]("Exactly this.", retry_after=1.2, limit=3)
    response = await client.get(f"/jobs/{JOB}")
    body = assert_problem(response, code)
    assert body["detail"] == "Exactly this."
    assert body["retry_after"] == 1.2
    assert body["details"] == {"limit": 3}
    assert response.headers["retry-after"] == "2"


async def test_there_is_no_retry_after_without_a_time(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    stand_in.raises = UnknownJob()
    response = await client.get(f"/jobs/{JOB}")
    assert "retry-after" not in response.headers
    assert "retry_after" not in assert_problem(response, "job.not_found")


async def test_a_defect_shows_an_id_and_nothing_else(
    client: httpx.AsyncClient, stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.raises = RuntimeError(SECRET)
    response = await client.get(f"/jobs/{JOB}")
    body = assert_problem(response, "request.internal")
    assert SECRET not in response.text
    assert body["details"]["correlation_id"] == response.headers["x-request-id"]
    assert [getattr(record, "correlation_id", None) for record in caplog.records] == [response.headers["x-request-id"]]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing/here", "request.not_found"),
        ("GET", "/docs/errors/no.such", "request.not_found"),
        ("PATCH", "/jobs", "request.method_not_allowed"),
        ("DELETE", "/find", "request.method_not_allowed"),
        ("GET", "/jobs/not-a-uuid", "request.invalid"),
        ("GET", "/jobs?limit=0", "request.invalid"),
        ("GET", "/jobs?status=odd", "request.invalid"),
        ("GET", f"/jobs/{JOB}?wait=46", "request.invalid"),
        ("GET", f"/jobs/{JOB}?wait=nan", "request.invalid"),
        ("GET", f"/jobs/{JOB}?outcomes_after=3000000000", "request.invalid"),
        ("GET", "/documents?source_prefix=a%00b", "request.invalid"),
        ("GET", "/documents?cursor=a%00b", "request.invalid"),
        ("POST", "/find", "request.invalid"),
    ],
)
async def test_what_the_framework_refuses_is_a_problem(method: str, path: str, code: str, client: httpx.AsyncClient) -> None:
    assert_problem(await client.request(method, path), code)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b'{"query": 1', "body"),
        (b"\xff\xfe", "body"),
        (b"[" * 100_000, "body"),
        (b'{"query": "ok", "surprise": 1}', "surprise"),
        (b'{"query": "ok", "limit": 1000}', "limit"),
        (b'{"query": "a\\u0000b"}', "query"),
        (b'{"query": "\\ud800"}', "query"),
        (b'{"query": "ok", "filters": {"metadata.n": {"gte": NaN}}}', "filters"),
        (b'{"query": "ok", "filters": {"kind": "a\\u0000"}}', "filters"),
    ],
)
async def test_a_body_that_cannot_be_read_names_the_field_and_no_value(
    content: bytes, field: str, client: httpx.AsyncClient, stand_in: StandIn
) -> None:
    response = await client.post("/find", content=content, headers={"content-type": "application/json"})
    body = assert_problem(response, "request.invalid")
    assert field in body["detail"]
    assert stand_in.calls == []


async def test_validation_never_repeats_the_input(client: httpx.AsyncClient) -> None:
    hostile = {"spec": {"type": SECRET, "url": SECRET}, "knowledge_base": [SECRET]}
    response = await client.post("/lightrag/ingest-async", json=hostile)
    assert_problem(response, "request.invalid")
    assert "hunter2" not in response.text


async def test_the_name_of_a_field_is_bounded_and_printable(client: httpx.AsyncClient) -> None:
    response = await client.post("/find", json={"query": "ok", "filters": {"x\n" * 5000: "1"}})
    body = assert_problem(response, "request.invalid")
    assert len(response.content) < 3000
    assert body["detail"].isprintable()


async def test_all_methods_of_a_path_are_allowed_in_the_405(client: httpx.AsyncClient) -> None:
    response = await client.patch("/knowledge-bases")
    assert response.headers["allow"] == "GET, POST"


async def test_the_type_of_a_problem_leads_to_its_description(client: httpx.AsyncClient) -> None:
    for code, leaf in leaf_errors().items():
        page = await client.get(f"/docs/errors/{code}")
        assert page.status_code == 200
        assert leaf.advice.split("`")[0][:20].split("'")[0] in page.text


async def test_a_principal_that_is_refused_never_reaches_the_port(stand_in: StandIn, api_settings: Settings) -> None:
    async def nobody(_request: object) -> Any:
        raise leaf_errors()["auth.required"]

    app = create_app(stand_in, api_settings, principal_of=nobody)
    schema = app.openapi()
    async with client_of(app) as client:
        for path, item in schema["paths"].items():
            for method, operation in item.items():
                if operation["operationId"] in ("healthz", "readyz", "put_upload"):
                    continue
                url = path.format(job_id=JOB, document_id=JOB, name="a", upload_id=JOB, key_id="k3v9x0ab", namespace="a")
                response = await client.request(method, url, json={})
                assert_problem(response, "auth.required")
    assert stand_in.calls == []


@pytest.mark.parametrize(
    ("error", "code"), [(CircuitOpen(retry_after=3), "dependency.circuit_open"), (RuntimeError(SECRET), "request.internal")]
)
async def test_an_error_of_the_inner_application_is_a_problem_too(error: Exception, code: str, stand_in: StandIn) -> None:
    async def broken(_request: Request) -> Response:
        raise error

    inner = Starlette(routes=[Route("/mcp", broken, methods=["POST"])])
    async with client_of(create_app(stand_in, load(), mcp_app=inner)) as client:
        response = await client.post("/mcp")
        wrong = await client.get("/mcp")
    assert SECRET not in response.text
    assert_problem(response, code)
    assert_problem(wrong, "request.method_not_allowed")


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000")


def test_details_are_part_of_the_error() -> None:
    error: ShieldError = UnknownJob(job="x")
    assert error.public()["details"] == {"job": "x"}
