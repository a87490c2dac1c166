"""Everything in one process that asks for keys: the first key, the commands of its own user, MCP, and a command from far away."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import stat
from typing import Any

import httpx
import pytest
from fastmcp import Client

from shield.auth import Principal, Scope
from shield.cli.app import run
from shield.database.tables import audit_records
from shield.errors import BytesQuotaExceeded, Forbidden, UnknownKnowledgeBase
from shield.service.models import FindRequest, IngestRequest, KnowledgeBaseCreate, UploadCreate
from shield.settings import Settings, load
from tests.integration.conftest import Running
from tests.unit.api.test_problems import assert_problem

TEAM = Principal("team", frozenset(Scope) - {Scope.ADMIN}, frozenset({"default"}))


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SHIELD_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("SHIELD_AUTH_MODE", "api-key")

    async def call(*arguments: str) -> tuple[int, str]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            code = await asyncio.to_thread(run, list(arguments))
        return code, out.getvalue()

    return call


async def test_the_first_key_is_made_by_the_directorys_user_and_opens_every_surface(
    running: Running, command: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(auth=load(auth={"mode": "api-key"}).auth) as app:
        secret = settings.data_dir / "run" / "hop"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        async with httpx.AsyncClient(base_url=app.info.url, trust_env=False) as http:
            refused = await http.get("/jobs")
            assert_problem(refused, "auth.required")
            assert_problem(await http.post("/mcp", json={}), "auth.required")
            wrong = {"Authorization": "Bearer shk_abcdefgh_" + "a" * 43}
            assert_problem(await http.post("/mcp", json={}, headers=wrong), "auth.invalid")
            code, out = await command("keys", "create", "--admin", "--name", "first")  # no key is needed for it here
            assert code == 0
            key = out.strip()
            assert key.startswith("shk_")
            assert (await http.get("/jobs", headers={"Authorization": f"Bearer {key}"})).is_success
        async with Client(f"{app.info.url}/mcp", auth=key) as agent:
            assert (await agent.call_tool("list_knowledge_bases", {})).structured_content
        # from far away: the address and the key are all there is
        monkeypatch.setenv("SHIELD_DATA_DIR", "/nowhere")
        monkeypatch.setenv("SHIELD_URL", app.info.url)
        code, out = await command("kb", "list", "--json")
        assert code == 11  # no key
        monkeypatch.setenv("SHIELD_API_KEY", key)
        assert json.loads((await command("kb", "list", "--json"))[1])["knowledge_bases"][0]["name"] == "default"
        code, out = await command("keys", "create", "--scope", "kb:read", "--json")
        reader = json.loads(out)
        code, out = await command("keys", "rotate", reader["id"], "--grace", "0", "--json")
        assert code == 0
        assert (await command("keys", "revoke", json.loads(out)["id"]))[0] == 0
        listed = {item["id"]: item for item in json.loads((await command("keys", "list", "--json"))[1])["keys"]}
        assert not listed[reader["id"]]["valid"]
        assert (await command("keys", "revoke", "zzzzzzzz"))[0] == 12
        assert "revoked" in (await command("keys", "list"))[1]
    assert not secret.exists()


async def test_rights_and_limits_hold_in_the_service(running: Running) -> None:
    auth = load(auth={"audit_queries": True}).auth
    async with running(auth=auth, jobs={"max_bytes_day": 1000}) as app:
        shield, admin = app.shield, Principal("root", frozenset({Scope.ADMIN}))
        # what a principal made is its own, though no key lists it
        base = await shield.create_knowledge_base(admin, KnowledgeBaseCreate(name="mine", graph=False))
        lowered = Principal("root", frozenset({Scope.KB_READ}), frozenset())
        assert [item.name for item in (await shield.knowledge_bases(lowered)).knowledge_bases] == [base.name]
        with pytest.raises(UnknownKnowledgeBase):
            await shield.find(TEAM, FindRequest(query="anything", knowledge_base="mine"))
        # a retry takes the rights that starting takes, today
        request = IngestRequest.model_validate({"knowledge_base": "default", "spec": {"type": "document", "text": "Words.", "source": "a"}})
        job = await shield.ingest(TEAM, request)
        await shield.cancel(TEAM, job.job_id)
        async with asyncio.timeout(30):
            while (await shield.job(TEAM, job.job_id, wait=5)).finished_at is None:
                pass
        narrowed = Principal("team", TEAM.scopes, frozenset({"other"}))
        with pytest.raises(UnknownKnowledgeBase):
            await shield.retry(narrowed, job.job_id)
        for attempt in (shield.retry, shield.cancel):
            with pytest.raises(Forbidden, match="kb:write"):
                await attempt(Principal("team", frozenset({Scope.CRAWL, Scope.JOBS_READ})), job.job_id)
        # uploads count, before a job takes them
        await shield.upload(TEAM, "a.txt", None, _bytes(600))
        with pytest.raises(BytesQuotaExceeded) as caught:
            await shield.upload(TEAM, "b.txt", None, _bytes(600))
        assert caught.value.retry_after is not None
        announced = await shield.create_upload(TEAM, UploadCreate(filename="c.txt"))
        token = str(announced.upload_url).partition("token=")[2]
        with pytest.raises(BytesQuotaExceeded):
            await shield.put_upload(announced.upload_id, token, _bytes(600))
        await shield.upload(TEAM, "d.txt", None, _bytes(300))
        await shield.upload(admin, "e.txt", None, _bytes(600))
        # what is written down
        await shield.find(TEAM, FindRequest(query="a very private question"))
        async with shield.parts.engine.connect() as connection:
            records = (await connection.execute(audit_records.select().order_by(audit_records.c.id))).mappings().all()
        assert [(record["action"], record["principal"], record["subject"]) for record in records] == [
            ("create", "root", "mine"), ("find", "team", "default"),
        ]  # fmt: skip
        assert records[1]["details"]["length"] == "23"
        assert "private" not in str(records)


async def _bytes(count: int) -> Any:
    yield b"x" * count
