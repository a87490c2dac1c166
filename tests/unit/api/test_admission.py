"""Admission: the surplus is refused at once, the rest is answered, and who only waits takes no turn."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from shield.api.admission import Admission
from shield.errors import Overloaded
from shield.settings import ApiSettings


class Server:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        await self.go.wait()


def request(path: str = "/find", query: bytes = b"", method: str = "POST", length: int = 2) -> dict[str, Any]:
    return {"type": "http", "path": path, "method": method, "query_string": query, "headers": [(b"content-length", str(length).encode())]}


async def whole() -> dict[str, Any]:
    return {"type": "http.request", "body": b"{}", "more_body": False}


async def ask(admission: Admission, scope: dict[str, Any], receive: Any = whole) -> None:
    await admission(scope, receive, None)  # type: ignore[arg-type]


def limits(**changes: Any) -> ApiSettings:
    return ApiSettings(**{"max_active": 2, "max_waiting": 3, "turn": timedelta(milliseconds=50), **changes})


async def begun(server: Server, count: int) -> None:
    async with asyncio.timeout(2):
        while server.begun < count:
            await asyncio.sleep(0)


async def test_more_than_may_be_worked_on_wait_for_their_turn_and_are_refused_when_none_comes() -> None:
    server = Server()
    admission = Admission(server, limits())
    first = [asyncio.create_task(ask(admission, request())) for _ in range(2)]
    await begun(server, 2)
    with pytest.raises(Overloaded) as refused:
        await ask(admission, request())
    assert refused.value.retry_after
    server.go.set()
    await asyncio.gather(*first)
    await ask(admission, request())
    assert server.begun == 3


async def test_a_long_queue_refuses_without_waiting() -> None:
    server = Server()
    admission = Admission(server, limits(turn=timedelta(seconds=30)))
    tasks = [asyncio.create_task(ask(admission, request())) for _ in range(2 + 8)]
    await begun(server, 2)
    with pytest.raises(Overloaded):
        await asyncio.wait_for(ask(admission, request()), 1)
    server.go.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(("path", "query"), [("/jobs/1/events", b""), ("/jobs/1", b"wait=30")])
async def test_who_only_waits_takes_no_turn_but_is_counted(path: str, query: bytes) -> None:
    server = Server()
    admission = Admission(server, limits())
    waiting = [asyncio.create_task(ask(admission, request(path, query, "GET"))) for _ in range(3)]
    await begun(server, 3)
    with pytest.raises(Overloaded):
        await ask(admission, request(path, query, "GET"))
    working = asyncio.create_task(ask(admission, request()))
    await begun(server, 4)
    server.go.set()
    await asyncio.gather(working, *waiting)


async def test_a_lagging_event_loop_refuses_at_once_and_liveness_is_still_answered() -> None:
    server = Server()
    server.go.set()
    admission = Admission(server, limits(max_answering=5, max_lag=timedelta(milliseconds=100)))
    held = Server()
    admission_app, admission._app = admission._app, held
    busy = [asyncio.create_task(ask(admission, request("/lightrag/query"))) for _ in range(5)]
    await begun(held, 5)
    time.sleep(0.3)  # noqa: ASYNC251  the loop stands still
    async with asyncio.timeout(2):
        while not admission._lag:
            await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ask(admission, request())
    admission._app = admission_app
    await ask(admission, request("/healthz", method="GET"))
    held.go.set()
    await asyncio.gather(*busy)
    async with asyncio.timeout(2):
        while admission._lag:
            await asyncio.sleep(0.01)
    await ask(admission, request())


async def test_answers_that_wait_for_a_language_model_keep_no_search_out_and_are_bounded_by_themselves() -> None:
    server = Server()
    admission = Admission(server, limits(max_answering=3))
    answers = [asyncio.create_task(ask(admission, request("/lightrag/query"))) for _ in range(3)]
    await begun(server, 3)
    with pytest.raises(Overloaded):
        await ask(admission, request("/lightrag/query"))
    search = asyncio.create_task(ask(admission, request()))
    await begun(server, 4)
    server.go.set()
    await asyncio.gather(search, *answers)


@pytest.mark.parametrize(("tool", "room"), [("qdrant_find", 2), ("lightrag_query", 4), ("get_job_status", 3), (None, 4)])
async def test_a_tool_call_costs_what_its_tool_costs(tool: str | None, room: int) -> None:
    server = Server()
    admission = Admission(server, limits(max_answering=4))
    scope = request("/mcp")
    if tool:
        scope["headers"].append((b"mcp-name", tool.encode()))
    calls = [asyncio.create_task(ask(admission, scope)) for _ in range(room)]
    await begun(server, room)
    with pytest.raises(Overloaded):
        await ask(admission, scope)
    server.go.set()
    await asyncio.gather(*calls)


async def test_slow_senders_hold_no_turn() -> None:
    server, never = Server(), asyncio.Event()

    async def slow() -> dict[str, Any]:
        await never.wait()
        return await whole()

    admission = Admission(server, limits())
    slows = [asyncio.create_task(ask(admission, request(), slow)) for _ in range(2)]
    await asyncio.sleep(0)
    server.go.set()
    await ask(admission, request())
    assert server.begun == 1
    never.set()
    await asyncio.gather(*slows)
    assert server.begun == 3


@pytest.mark.parametrize("size", [10, 40_000])
async def test_a_body_is_handed_on_whole_and_a_long_one_takes_no_turn(size: int) -> None:
    parts = [b"a" * size, b"b" * size, b"c" * size]
    seen: list[bytes] = []
    held = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["more_body"]:
            seen.append(message["body"])
        seen.append(message["body"])

    left = iter(parts)

    async def receive() -> dict[str, Any]:
        body = next(left)
        return {"type": "http.request", "body": body, "more_body": body is not parts[-1]}

    admission = Admission(held, limits())
    working = [asyncio.create_task(ask(admission, request())) for _ in range(2)]
    await begun(held, 2)
    admission._app = app
    asking = asyncio.create_task(ask(admission, request(length=3 * size), receive))
    if size == 10:  # a short one waits for its turn
        held.go.set()
    await asking
    assert seen == parts
    held.go.set()
    await asyncio.gather(*working)
