"""The orchestrator's client against a real HTTP server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from shield_operator.orchestrator import BATCH, NAMESPACES, Orchestrator, OrchestratorRefused, OrchestratorUnavailable
from tests.unit.operator.serving import served


class Server:
    """Keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, Any, str | None]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.method, request.path_qs, body, request.headers.get("Authorization")))
        answer = self.answers.pop(0)
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)


def a_row(uid: str) -> dict[str, Any]:
    return {
        "uid": uid,
        "job_id": f"job-{uid}",
        "status": "processing",
        "stage": "fetching",
        "progress": {"documents": 2},
        "news": "ignored",
    }


async def test_rows_are_asked_for_in_batches_and_unknown_ones_are_left_out() -> None:
    server = Server({"jobs": [a_row("0")]}, {"jobs": [a_row(str(BATCH))]})
    async with served(server) as url, Orchestrator(url) as orchestrator:
        rows = await orchestrator.progress([str(number) for number in range(BATCH + 1)])
    assert sorted(rows) == ["0", str(BATCH)]
    assert [len(body["uids"]) for _, _, body, _ in server.requests] == [BATCH, 1]
    assert (rows["0"].progress.documents, rows["0"].ended) == (2, False)


async def test_all_pages_of_active_rows_are_read() -> None:
    server = Server({"uids": ["a", "b"], "next": "b"}, {"uids": ["c"], "next": None})
    async with served(server) as url, Orchestrator(url) as orchestrator:
        assert [page async for page in orchestrator.active()] == [["a", "b"], ["c"]]
    assert [path for _, path, _, _ in server.requests] == [
        "/ingest-jobs/active?after=&limit=1000",
        "/ingest-jobs/active?after=b&limit=1000",
    ]


async def test_of_some_namespaces_only_their_rows_are_asked_for() -> None:
    names = [f"team-{number}" for number in range(NAMESPACES + 1)]
    server = Server({"uids": ["a"], "namespaces": names[:-1]}, {"uids": [], "namespaces": names[-1:]})
    async with served(server) as url, Orchestrator(url) as orchestrator:
        assert [page async for page in orchestrator.active(names)] == [["a"], []]
    assert server.requests[0][1].endswith(f"&limit=1000&{'&'.join(f'namespaces={name}' for name in names[:-1])}")
    assert server.requests[1][1] == f"/ingest-jobs/active?after=&limit=1000&namespaces={names[-1]}"


async def test_an_orchestrator_that_tells_the_rows_of_all_namespaces_is_not_believed() -> None:
    async with served(Server({"uids": ["somebody-elses"]})) as url, Orchestrator(url) as orchestrator:
        with pytest.raises(OrchestratorUnavailable, match="too old"):
            [page async for page in orchestrator.active(["team-a"])]


async def test_rows_are_cancelled_and_nothing_is_sent_for_none() -> None:
    server = Server({"cancelled": 1})
    async with served(server) as url, Orchestrator(url) as orchestrator:
        await orchestrator.cancel([])
        await orchestrator.cancel(["a"])
    assert server.requests == [("POST", "/ingest-jobs/cancel", {"uids": ["a"]}, None)]


async def test_the_key_is_read_anew_for_each_call(tmp_path: Path) -> None:
    key = tmp_path / "key"
    server = Server({"jobs": []}, {"jobs": []})
    async with served(server) as url, Orchestrator(url, api_key_file=key) as orchestrator:
        with pytest.raises(OrchestratorUnavailable, match="key's file"):
            await orchestrator.progress(["a"])
        for text in ("one\n", "two\n"):
            key.write_text(text)
            await orchestrator.progress(["a"])
    assert [credential for *_, credential in server.requests] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_busy_or_broken_one_is_unavailable(status: int) -> None:
    async with served(Server(web.json_response({}, status=status))) as url, Orchestrator(url) as orchestrator:
        with pytest.raises(OrchestratorUnavailable, match=str(status)):
            await orchestrator.progress(["a"])


@pytest.mark.parametrize(
    ("told", "pause"), [({}, 1), ({"Retry-After": "7"}, 7), ({"Retry-After": "86400"}, 60), ({"Retry-After": "Mon"}, 1)]
)
async def test_a_busy_one_is_left_alone_for_as_long_as_it_says(told: dict[str, str], pause: float) -> None:
    async with served(Server(web.json_response({}, status=503, headers=told))) as url, Orchestrator(url) as orchestrator:
        with pytest.raises(OrchestratorUnavailable) as error:
            await orchestrator.progress(["a"])
    assert error.value.retry_after == pause


@pytest.mark.parametrize("answer", [web.Response(text="<html>"), {"jobs": [{"uid": "a"}]}, {"other": 1}])
async def test_an_answer_that_is_none_is_unavailable(answer: Any) -> None:
    answer = web.Response(text="<html>") if isinstance(answer, web.Response) else answer
    async with served(Server(answer)) as url, Orchestrator(url) as orchestrator:
        with pytest.raises(OrchestratorUnavailable):
            await orchestrator.progress(["a"])


async def test_a_no_keeps_its_code() -> None:
    said = web.json_response({"code": "auth.forbidden", "detail": "The scope admin is missing."}, status=403)
    async with served(Server(said)) as url, Orchestrator(url) as orchestrator:
        with pytest.raises(OrchestratorRefused) as refused:
            await orchestrator.progress(["a"])
    assert (refused.value.status, refused.value.code) == (403, "auth.forbidden")


async def test_one_that_does_not_answer_is_unavailable_in_time() -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async with served(hang) as url, Orchestrator(url, limit=0.05) as orchestrator:
        with pytest.raises(OrchestratorUnavailable, match="no answer in time"):
            await orchestrator.progress(["a"])


async def test_nobody_there_is_unavailable() -> None:
    async with Orchestrator("http://127.0.0.1:1") as orchestrator:
        with pytest.raises(OrchestratorUnavailable):
            await orchestrator.cancel(["a"])


async def test_redirects_are_not_followed() -> None:
    async with (
        served(Server(web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}))) as url,
        Orchestrator(url) as orchestrator,
    ):
        with pytest.raises((OrchestratorRefused, OrchestratorUnavailable)):
            await orchestrator.progress(["a"])
