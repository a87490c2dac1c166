"""The proxy misbehaves exactly where it is told to, and counts what got through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.kubernetes.api_proxy import (
    Answer,
    ApiProxy,
    Delay,
    Fault,
    Gone,
    KillAfter,
    KillBefore,
    Lose,
    Refuse,
    Rule,
    Silence,
    Write,
    our_writes,
    sort_of,
)
from tests.peers.serving import serving

JOBS = "/apis/batch/v1/namespaces/a/jobs"


class Server:
    """What stands behind the proxy."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, bytes]] = []
        self.more = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.heard.append((request.method, request.path_qs, await request.read()))
        if "watch" not in request.query:
            return web.json_response(
                {"token": request.headers.get("Authorization"), "said": "done"}, status=201 if request.method == "POST" else 200
            )
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(b'{"type":"ADDED"}\n')
        await self.more.wait()
        await stream.write(b'{"type":"MODIFIED"}\n')
        return stream


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[ApiProxy]:
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", server.answer)
    async with serving(app) as url, ApiProxy(url) as proxy:
        yield proxy


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_what_no_rule_names_is_passed_on_with_its_headers(proxy: ApiProxy, server: Server, session: aiohttp.ClientSession) -> None:
    async with session.post(proxy.url + JOBS + "?dry=1", data=b"{}", headers={"Authorization": "Bearer x"}) as answer:
        assert (answer.status, await answer.json()) == (201, {"token": "Bearer x", "said": "done"})
    assert server.heard == [("POST", JOBS + "?dry=1", b"{}")]
    assert [(write.method, write.path, write.status) for write in proxy.writes] == [("POST", JOBS, 201)]


async def test_the_nth_matching_request_is_met_and_the_others_are_not(
    proxy: ApiProxy, server: Server, session: aiohttp.ClientSession
) -> None:
    rule = proxy.add(Rule(Answer(409, "AlreadyExists"), "POST", "jobs$", body="two", nth=2, times=1))
    statuses = []
    for body in (b"two", b"one", b"two", b"two"):
        async with session.post(proxy.url + JOBS, data=body) as answer:
            statuses.append(answer.status)
    assert statuses == [201, 201, 409, 201]
    assert (rule.seen, rule.done, rule.happened.is_set(), len(server.heard)) == (3, 1, True, 3)


async def test_a_rule_without_a_limit_holds_until_it_is_removed(proxy: ApiProxy, session: aiohttp.ClientSession) -> None:
    rule = proxy.add(Rule(Answer(429, retry_after=7), times=0))
    for _ in range(2):
        async with session.get(proxy.url + JOBS) as answer:
            said = await answer.json()
            assert (answer.status, answer.headers["Retry-After"], said["details"]) == (429, "7", {"retryAfterSeconds": 7})
    proxy.remove(rule)
    async with session.get(proxy.url + JOBS) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("fault", "heard", "killed"),
    [(KillBefore(), 0, 1), (KillAfter(), 1, 1), (Lose(), 1, 0), (Refuse(), 0, 0)],
    ids=lambda value: type(value).__name__,
)
async def test_a_kill_or_a_loss_is_before_or_after_the_server_has_done_it(
    proxy: ApiProxy, server: Server, session: aiohttp.ClientSession, fault: Fault, heard: int, killed: int
) -> None:
    kills: list[int] = []
    proxy.kill = lambda: kills.append(1)
    proxy.add(Rule(fault))
    with pytest.raises(aiohttp.ClientError):
        await session.post(proxy.url + JOBS)
    assert (len(server.heard), len(kills)) == (heard, killed)
    assert [write.status for write in proxy.writes] == [201 if heard else 0]


async def test_a_delay_only_takes_longer(proxy: ApiProxy, session: aiohttp.ClientSession) -> None:
    proxy.add(Rule(Delay(0.05)))
    clock = asyncio.get_running_loop().time
    began = clock()
    async with session.get(proxy.url + JOBS) as answer:
        assert answer.status == 200
    assert clock() - began >= 0.05


async def test_a_watch_streams_and_a_cut_breaks_it(proxy: ApiProxy, server: Server, session: aiohttp.ClientSession) -> None:
    async with session.get(proxy.url + JOBS + "?watch=1") as stream:
        assert await stream.content.readline() == b'{"type":"ADDED"}\n'
        assert proxy.cut("pods") == 0
        assert proxy.cut("jobs") == 1
        with pytest.raises(aiohttp.ClientError):
            await stream.content.readline()
    server.more.set()


async def test_a_frozen_watch_stays_open_and_says_nothing_more(proxy: ApiProxy, server: Server, session: aiohttp.ClientSession) -> None:
    async with session.get(proxy.url + JOBS + "?watch=1") as stream:
        assert await stream.content.readline() == b'{"type":"ADDED"}\n'
        assert proxy.freeze() == 1
        server.more.set()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await stream.content.readline()


async def test_a_watch_may_be_silent_from_its_start_or_begin_with_gone(
    proxy: ApiProxy, server: Server, session: aiohttp.ClientSession
) -> None:
    proxy.add(Rule(Gone(), "GET", "watch="))
    async with session.get(proxy.url + JOBS + "?watch=true") as stream:
        event: Any = json.loads(await stream.content.readline())
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    proxy.add(Rule(Silence(), "GET", "watch="))
    async with session.get(proxy.url + JOBS + "?watch=true") as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await stream.content.readline()
    server.more.set()


async def test_a_server_that_is_away_breaks_the_connection(
    session: aiohttp.ClientSession, unused_tcp_port_factory: Callable[[], int]
) -> None:
    async with ApiProxy(f"http://127.0.0.1:{unused_tcp_port_factory()}") as proxy:
        with pytest.raises(aiohttp.ClientError):
            await session.post(proxy.url + JOBS)
        assert [write.status for write in proxy.writes] == [0]


@pytest.mark.parametrize(
    ("method", "path", "sort"),
    [
        ("POST", JOBS, "POST jobs"),
        ("DELETE", JOBS + "/x-1", "DELETE jobs"),
        ("PATCH", "/apis/shield.hx-citadel.io/v1alpha1/namespaces/a/ingestjobs/x/status", "PATCH ingestjobs/status"),
        ("POST", "/api/v1/namespaces/a/events", "POST events"),
        ("POST", "/ingest-jobs/cancel", "POST /ingest-jobs/cancel"),
    ],
)
def test_writes_are_sorted_by_method_and_resource(method: str, path: str, sort: str) -> None:
    assert sort_of(Write(method, path, 200, 0)) == sort


def test_only_writes_that_the_server_took_are_counted_and_no_leases() -> None:
    lease = "/apis/coordination.k8s.io/v1/namespaces/s/leases/l"
    log = [
        Write("POST", JOBS, 201, 0),
        Write("POST", JOBS, 409, 0),
        Write("POST", JOBS, 0, 0),
        Write("PUT", lease, 200, 0),
        Write("POST", JOBS, 201, 0),
    ]
    assert our_writes(log) == {"POST jobs": 2}
