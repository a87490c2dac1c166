"""The tools over real streamable HTTP: both protocol eras on one process, no sessions, many callers at once."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, Literal
from uuid import UUID

import httpx
import pytest
import uvicorn
from fastmcp import Client
from fastmcp.client.client import CallToolResult
from starlette.types import Message, Receive, Scope, Send

from shield.auth import LOCAL, Principal
from shield.errors import CircuitOpen
from shield.mcp import create_mcp, http_app, warm_up
from shield.service.models import JobView
from shield.settings import load
from shield.telemetry.metrics import Metrics
from tests.unit.stand_in import JOB, StandIn

Era = Literal["auto", "legacy"]
ERAS: list[Era] = ["auto", "legacy"]


class LongPolled(StandIn):
    """Answers a poll that may wait when the job ends."""

    POLLS = 10

    def __init__(self) -> None:
        super().__init__()
        self.all_wait = asyncio.Event()
        self.ended = asyncio.Event()

    async def job(self, who: Principal, job_id: UUID, *, wait: float = 0, outcomes_after: int = 0, outcomes_limit: int = 20) -> JobView:
        answer = await super().job(who, job_id, wait=wait, outcomes_after=outcomes_after, outcomes_limit=outcomes_limit)
        if len(self.calls) == self.POLLS:
            self.all_wait.set()
        await asyncio.wait_for(self.ended.wait(), wait)
        return answer


@pytest.fixture
def shield() -> LongPolled:
    return LongPolled()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def url(shield: LongPolled, metrics: Metrics) -> AsyncIterator[str]:
    app = http_app(create_mcp(shield, metrics, load(), principal=lambda: LOCAL))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=2))
    with socket.create_server(("127.0.0.1", 0)) as listening:  # it listens already, so nobody has to wait for the server's start
        task = asyncio.create_task(server.serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        server.should_exit = True
        await asyncio.wait_for(task, 10)


@pytest.fixture(params=ERAS)
async def client(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Client[Any]]:
    async with Client(url, mode=request.param) as client:
        yield client


async def test_tools_are_listed_and_answer_with_structured_content(client: Client[Any], shield: LongPolled) -> None:
    assert {"crawl_web", "qdrant_find", "get_job_status"} <= {tool.name for tool in await client.list_tools()}
    result = await client.call_tool("crawl_web", {"url": "https://example.org/", "max_pages": 3})
    assert (result.structured_content or {})["job_id"] == str(JOB)
    assert shield.calls[0][1]["request"].spec.max_pages == 3


async def test_errors_keep_their_form_on_the_wire(client: Client[Any], shield: LongPolled) -> None:
    shield.raises = CircuitOpen(retry_after=12.0, service="qdrant")
    attempts: list[tuple[str, dict[str, Any], str]] = [
        ("qdrant_find", {"query": "q"}, "dependency.circuit_open"),
        ("qdrant_find", {"query": 1}, "request.invalid"),
        ("no_such_tool", {}, "request.tool_not_found"),
    ]
    for tool, arguments, code in attempts:
        result = await client.call_tool(tool, arguments, raise_on_error=False)
        assert result.is_error
        assert (result.structured_content or {})["code"] == code
        assert json.loads(getattr(result.content[0], "text", "")) == result.structured_content
        if tool == "qdrant_find" and code.startswith("dependency"):
            assert (result.structured_content or {})["retry_after"] == 12.0


async def test_many_callers_are_served_at_once(url: str, shield: LongPolled, metrics: Metrics) -> None:
    async def poll(mode: Era) -> CallToolResult:
        async with Client(url, mode=mode) as client:
            answer: CallToolResult = await client.call_tool("get_job_status", {"job_id": str(JOB), "wait_seconds": 45})
            return answer

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        polls = [tasks.create_task(poll(mode)) for mode in ERAS * (LongPolled.POLLS // 2)]
        await shield.all_wait.wait()
        async with Client(url) as quick:  # a short question is not held up by the long polls
            assert not (await quick.call_tool("qdrant_find", {"query": "q"})).is_error
        shield.ended.set()
    assert not any(task.result().is_error for task in polls)
    assert b'tool_calls_total{status="success",tool_name="get_job_status"} 10.0' in metrics.render()[0]


async def test_there_are_no_sessions(url: str) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_knowledge_bases", "arguments": {}}}
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    async with httpx.AsyncClient() as http:
        answer = await http.post(url, json=request, headers=headers)
    assert answer.status_code == 200
    assert "mcp-session-id" not in answer.headers
    assert '"isError":false' in answer.text.replace(" ", "")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"jsonrpc":"2.0"}',
        b"\xff\xfe",
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}',
        b"[" * 5000,
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_a_body_that_is_no_request_is_refused_and_harms_nobody(url: str, body: bytes) -> None:
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    async with httpx.AsyncClient() as http:
        answer = await http.post(url, content=body, headers=headers)
        assert 400 <= answer.status_code < 500
    async with Client(url) as client:
        assert not (await client.call_tool("list_knowledge_bases", {})).is_error


async def test_a_server_answers_itself_once_before_others_and_nothing_is_counted(shield: LongPolled, metrics: Metrics) -> None:
    app = http_app(create_mcp(shield, metrics, load(), principal=lambda: LOCAL))
    answers: list[Message] = []

    async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            answers.append(message)
            await send(message)

        await app(scope, receive, note)

    before = _counted(metrics)
    async with app.router.lifespan_context(app):
        await warm_up(recorded)
    assert answers[0]["status"] == 200
    assert b"qdrant_find" in b"".join(message.get("body", b"") for message in answers)
    assert shield.calls == []
    assert _counted(metrics) == before


def _counted(metrics: Metrics) -> list[bytes]:
    return [line for line in metrics.render()[0].splitlines() if line.startswith(b"tool_calls")]
