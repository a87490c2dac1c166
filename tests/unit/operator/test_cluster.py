"""The API's adapter against a real HTTP server that answers as the API server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client as kubernetes

from shield_operator import cluster as api
from shield_operator.cluster import INGESTJOBS, JOBS, PODS, ClusterError, KubernetesCluster
from tests.unit.operator.serving import Handler, served


@asynccontextmanager
async def connected(handler: Handler, limit: float = 5) -> AsyncIterator[KubernetesCluster]:
    async with served(handler) as url:
        cluster = KubernetesCluster(kubernetes.Configuration(host=url), timeout=limit, list_timeout=limit, page=2)
        try:
            yield cluster
        finally:
            await cluster.close()


def saying(*answers: Any) -> tuple[Handler, list[web.Request]]:
    left, requests = list(answers), []

    async def handler(request: web.Request) -> web.StreamResponse:
        await request.read()  # it is kept, for a look at it later
        requests.append(request)
        answer = left.pop(0)
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)

    return handler, requests


def a_failure(status: int, reason: str = "", **details: Any) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": f"it is {reason}", "code": status, "details": details}
    return web.json_response(body, status=status)


async def test_paths_follow_group_namespace_and_subresource() -> None:
    assert INGESTJOBS.path("team", "x", "status") == "/apis/shield.hx-citadel.io/v1alpha1/namespaces/team/ingestjobs/x/status"
    assert JOBS.path() == "/apis/batch/v1/jobs"
    assert PODS.path("team") == "/api/v1/namespaces/team/pods"


async def test_a_list_is_read_to_its_last_page() -> None:
    pages = [
        {"items": [{"n": 1}, {"n": 2}], "metadata": {"resourceVersion": "7", "continue": "more"}},
        {"items": [{"n": 3}], "metadata": {"resourceVersion": "7"}},
    ]
    handler, requests = saying(*pages)
    async with connected(handler) as cluster:
        found = [page async for page in cluster.list(JOBS, "team", selector="a=b", metadata_only=True)]
    assert ([obj["n"] for page in found for obj in page.items], found[0].version) == ([1, 2, 3], "7")
    assert [dict(request.query) for request in requests] == [
        {"limit": "2", "labelSelector": "a=b"},
        {"limit": "2", "labelSelector": "a=b", "continue": "more"},
    ]
    assert "PartialObjectMetadataList" in requests[0].headers["Accept"]


async def test_a_patch_is_a_merge_patch_and_a_deletion_has_its_conditions() -> None:
    handler, requests = saying({}, {})
    async with connected(handler) as cluster:
        await cluster.patch(INGESTJOBS, "team", "x", {"status": {}}, subresource="status")
        await cluster.delete(JOBS, "team", "x", uid="u", version="7")
    assert requests[0].headers["Content-Type"] == "application/merge-patch+json"
    options = await requests[1].json()
    assert (options["preconditions"], options["propagationPolicy"]) == ({"uid": "u", "resourceVersion": "7"}, "Background")


async def test_deleting_what_is_gone_is_success() -> None:
    async with connected(saying(a_failure(404, "NotFound"))[0]) as cluster:
        await cluster.delete(JOBS, "team", "x", uid="u")


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (403, "Forbidden", api.Forbidden),
        (404, "NotFound", api.NotFound),
        (409, "AlreadyExists", api.AlreadyExists),
        (409, "Conflict", api.Conflict),
        (410, "Expired", api.Expired),
        (422, "Invalid", api.Invalid),
        (429, "TooManyRequests", api.Throttled),
        (500, "InternalError", api.Unavailable),
        (503, "", api.Unavailable),
        (418, "", ClusterError),
    ],
)
async def test_a_failure_becomes_its_error(status: int, reason: str, error: type[ClusterError]) -> None:
    async with connected(saying(a_failure(status, reason, retryAfterSeconds=3))[0]) as cluster:
        with pytest.raises(error) as raised:
            await cluster.create(JOBS, "team", {"metadata": {"name": "x"}})
    assert type(raised.value) is error
    assert (raised.value.status, raised.value.retry_after, raised.value.message) == (status, 3, f"it is {reason}")


async def test_a_proxys_page_is_an_error_too() -> None:
    page = web.Response(status=502, text="<html>", headers={"Retry-After": "2"})
    async with connected(saying(page)[0]) as cluster:
        with pytest.raises(api.Unavailable) as raised:
            await cluster.get(JOBS, "team", "x")
    assert (raised.value.retry_after, "GET /apis/batch/v1" in raised.value.message) == (2, True)


async def test_no_answer_in_time_is_unavailable() -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async with connected(hang, limit=0.05) as cluster:
        with pytest.raises(api.Unavailable):
            await cluster.get(JOBS, "team", "x")


async def test_nobody_there_is_unavailable() -> None:
    cluster = KubernetesCluster(kubernetes.Configuration(host="http://127.0.0.1:1"), timeout=1, list_timeout=1, page=2)
    with pytest.raises(api.Unavailable):
        await cluster.get(JOBS, "team", "x")
    await cluster.close()


async def test_what_is_served_is_known_by_name_and_a_missing_group_is_empty() -> None:
    handler, _ = saying({"resources": [{"name": "ingestjobs"}, {"name": "ingestjobs/status"}]}, a_failure(404, "NotFound"))
    async with connected(handler) as cluster:
        assert await cluster.served("shield.hx-citadel.io", "v1alpha1") == {"ingestjobs", "ingestjobs/status"}
        assert await cluster.served("other", "v1") == frozenset()
