"""The Host and Origin checks stand before every route, and every answer carries the security headers."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shield.api.app import create_app
from shield.settings import Settings
from tests.unit.api.test_problems import assert_problem, client_of
from tests.unit.stand_in import DOCUMENT, JOB, UPLOAD, StandIn


async def _inner(_request: Request) -> JSONResponse:
    return JSONResponse({"mcp": True})


@pytest.fixture
def app(stand_in: StandIn, api_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    samples = tmp_path_factory.mktemp("samples")
    (samples / "index.html").write_text("<p>hello</p>")
    inner = Starlette(routes=[Route("/mcp", _inner, methods=["GET", "POST"])])
    return create_app(stand_in, api_settings, mcp_app=inner, samples=samples)


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    values = {"job_id": JOB, "document_id": DOCUMENT, "upload_id": UPLOAD, "name": "default", "key_id": "k3v9x0ab", "namespace": "a"}
    described = [(method.upper(), path.format(**values)) for path, item in app.openapi()["paths"].items() for method in item]
    others = [
        ("GET", "/"), ("GET", "/docs"), ("GET", "/docs/errors/x.y"), ("GET", "/openapi.json"), ("POST", "/mcp"), ("GET", "/mcp/"),
        ("GET", "/samples/"), ("GET", "/samples/none"), ("GET", "/no/such/route"), ("PATCH", "/jobs"), ("OPTIONS", "/find"), ("HEAD", "/healthz"),
    ]  # fmt: skip
    return described + others


async def test_a_foreign_host_is_refused_on_every_route(app: FastAPI, stand_in: StandIn) -> None:
    async with client_of(app) as client:
        for method, path in every_route(app):
            response = await client.request(method, path, headers={"Host": "rebound.example:8000"})
            assert response.status_code == 421, path
            if method != "HEAD":
                assert_problem(response, "request.host_refused")
    assert stand_in.calls == []


async def test_a_foreign_origin_is_refused_on_every_route(app: FastAPI, stand_in: StandIn) -> None:
    async with client_of(app) as client:
        for method, path in every_route(app):
            response = await client.request(method, path, headers={"Origin": "https://evil.example"})
            assert response.status_code == 403, path
            if method != "HEAD":
                assert_problem(response, "request.origin_refused")
    assert stand_in.calls == []


async def test_an_own_page_reaches_the_routes_and_gets_no_cors_headers(app: FastAPI) -> None:
    async with client_of(app) as client:
        for method, path in every_route(app):
            response = await client.request(method, path, headers={"Origin": "http://127.0.0.1:8000"})
            assert response.status_code not in (403, 421), path
            assert not any(name.startswith("access-control-") for name in response.headers)


async def test_every_answer_carries_the_security_headers(app: FastAPI, stand_in: StandIn) -> None:
    async with client_of(app) as client:
        answers = [await client.request(method, path) for method, path in every_route(app)]
        stand_in.raises = RuntimeError("x")
        answers += [await client.get("/jobs"), await client.get("/healthz", headers={"Host": "x"})]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "no-" in answer.headers["cache-control"]
        assert answer.headers["x-request-id"]


async def test_the_inner_application_and_the_samples_answer(app: FastAPI) -> None:
    async with client_of(app) as client:
        assert (await client.post("/mcp")).json() == {"mcp": True}
        assert "hello" in (await client.get("/samples/")).text
        assert_problem(await client.get("/samples/../app.py"), "request.not_found")


async def test_a_doubled_host_header_is_refused(app: FastAPI) -> None:
    async with client_of(app) as client:
        request = client.build_request("GET", "/healthz")
        request.headers = httpx.Headers([("Host", "127.0.0.1:8000"), ("Host", "evil.example")])
        assert_problem(await client.send(request), "request.host_refused")


async def test_a_websocket_is_turned_away(app: FastAPI) -> None:
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/mcp", "headers": [], "scheme": "ws", "server": ("127.0.0.1", 8000), "query_string": b""}
    await app(scope, receive, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_requests_are_counted_by_template_and_never_by_path(stand_in: StandIn, api_settings: Settings) -> None:
    counted: list[tuple[str, str, int]] = []

    class Counter:
        def http_request(self, route: str, method: str, status: int, seconds: float) -> None:
            assert seconds >= 0
            counted.append((route, method, status))

    async with client_of(create_app(stand_in, api_settings, Counter())) as client:
        await client.get(f"/jobs/{JOB}")
        await client.get("/wp-admin/secret")
        await client.request("BREW", "/jobs")
        await client.get("/jobs", headers={"Host": "x"})
    assert counted == [("/jobs/{job_id}", "GET", 200), ("unmatched", "GET", 404), ("/jobs", "other", 405), ("unmatched", "GET", 421)]
