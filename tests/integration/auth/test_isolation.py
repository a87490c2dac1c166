"""The isolation proof's fast form: everybody calls everything, and a broken product is noticed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from fastapi import FastAPI

from shield.api import authentication
from shield.api.app import create_app
from shield.auth import Principal
from shield.jobs.model import Job
from shield.jobs.repository import JobRepository
from shield.settings import Settings, load
from tests.proofs import isolation
from tests.proofs.isolation_cases import TOOLS
from tests.proofs.isolation_world import ELSEWHERE, MARK, VAULT, Target, World, world
from tests.unit.stand_in import StandIn

BAD = ("nobody", "expired key", "revoked key", "token for another server", "forged hop token")
"""`make proof-isolation` tries them all."""


@pytest.fixture
async def fleet(settings: Settings, dsn: str) -> AsyncIterator[World]:
    async with world(settings, dsn, "api-key") as found:
        yield found


def bearer(fleet: World, who: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {fleet.credentials[who]}"}


async def test_nothing_leaks_and_a_broken_product_is_noticed(fleet: World) -> None:
    fleet.bad = {who: fleet.bad[who] for who in BAD}
    report = await isolation.question(fleet)
    assert report.leaks == []
    assert report.missing == []
    assert report.requests > 400
    with patch.object(Principal, "sees", lambda *_: True):
        assert (await isolation.question(fleet, {"other"}, frozenset({"GET /documents/{document_id}"}))).leaks
        assert (await isolation.question(fleet, {"other"}, frozenset({"get_document"}))).leaks
    get: Callable[..., Awaitable[Job]] = JobRepository.get

    async def anybodys(self: JobRepository, _principal: str, job_id: Any) -> Job:
        return await get(self, None, job_id)

    with patch.object(JobRepository, "get", anybodys):
        assert (await isolation.question(fleet, {"reader"}, frozenset({"GET /jobs/{job_id}"}))).leaks
    with patch.object(authentication, "is_public", lambda *_: True), patch.object(fleet, "bad", {"nobody": None}):
        assert (await isolation.question(fleet, {"bad"}, frozenset({"GET /jobs"}))).leaks


def test_a_route_or_tool_without_a_case_is_noticed() -> None:
    app = create_app(StandIn(), load())

    @app.get("/secrets")
    async def secrets() -> None: ...

    bare: Any = None
    fleet = World(bare, bare, app, FastAPI(openapi_url=None), frozenset(TOOLS) | {"a_new_tool"}, {}, {}, Target.phantom())
    assert {"GET /secrets", "a_new_tool"} <= set(isolation.missing_cases(fleet))
    assert "GET /jobs/{job_id}" not in isolation.missing_cases(fleet)


async def test_a_place_in_a_list_and_an_idempotency_key_are_their_owners_alone(fleet: World) -> None:
    for number in range(3):
        note = {"text": f"Stone {number}.", "source": f"n:{number}", "knowledge_base": VAULT}
        assert (await fleet.api.post("/notes", json=note, headers=bearer(fleet, "owner"))).is_success
    params: dict[str, Any] = {"knowledge_base": VAULT, "limit": 1}
    page = (await fleet.api.get("/documents", params=params, headers=bearer(fleet, "owner"))).json()
    theirs = {**params, "cursor": page["next_cursor"]}
    assert (await fleet.api.get("/documents", params=theirs, headers=bearer(fleet, "owner"))).is_success
    refused = await fleet.api.get("/documents", params=theirs, headers=bearer(fleet, "reader"))
    assert refused.json()["code"] == "request.cursor_invalid"

    jobs = {}
    for who, base in (("owner", VAULT), ("other", ELSEWHERE)):
        body = {"knowledge_base": base, "spec": {"type": "document", "text": "The same."}}
        answer = await fleet.api.post("/lightrag/ingest-async", json=body, headers={**bearer(fleet, who), "Idempotency-Key": "one"})
        assert answer.status_code == 202
        jobs[who] = UUID(answer.json()["job_id"])
    assert jobs["owner"] != jobs["other"]
    listed = (await fleet.api.get("/jobs", headers=bearer(fleet, "other"))).text
    assert str(jobs["other"]) in listed
    assert str(jobs["owner"]) not in listed
    assert MARK not in listed
