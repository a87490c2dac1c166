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


def request(path: str = "/find", query: bytes = b"", method: str = "POST") -> dict[str, Any]:
    return {"type": "http", "path": path, "method": method, "query_string": query}


async def ask(admission: Admission, scope: dict[str, Any]) -> None:
    await admission(scope, None, None)  # type: ignore[arg-type]


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
    admission = Admission(server, limits(max_lag=timedelta(milliseconds=100)))
    held = Server()
    admission_app, admission._app = admission._app, held
    busy = asyncio.create_task(ask(admission, request()))
    await begun(held, 1)
    time.sleep(0.3)  # noqa: ASYNC251  the loop stands still
    async with asyncio.timeout(2):
        while not admission._lag:
            await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ask(admission, request())
    admission._app = admission_app
    await ask(admission, request("/healthz", method="GET"))
    held.go.set()
    await busy
    async with asyncio.timeout(2):
        while admission._lag:
            await asyncio.sleep(0.01)
    await ask(admission, request())
