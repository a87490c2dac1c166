"""API keys in a real database: made, used, rotated, revoked, expired; one answer for everything that is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.auth import LOCAL, Principal, Scope
from shield.auth import keys as form
from shield.cli.app import run
from shield.database.engine import create_engine
from shield.database.tables import api_keys, audit_records
from shield.errors import ConfigInvalid, CredentialInvalid, DatabaseUnavailable, Forbidden, UnknownKey
from shield.service.keys import ApiKeys
from shield.service.models import KeyCreate, KeyRotate
from shield.settings import PostgresSettings, load

NOT_ADMIN = Principal("reader", frozenset(Scope) - {Scope.ADMIN})


@pytest.fixture
def keys(engine: AsyncEngine) -> ApiKeys:
    return ApiKeys(engine, load(auth={"key_seen": 60, "key_grace": 3600}).auth)


async def change(engine: AsyncEngine, key_id: str, **values: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(values))


async def row(engine: AsyncEngine, key_id: str) -> Mapping[str, Any]:
    async with engine.connect() as connection:
        return dict((await connection.execute(sa.select(api_keys).where(api_keys.c.id == key_id))).mappings().one())


async def test_a_key_stands_for_its_principal_and_its_secret_is_kept_nowhere(keys: ApiKeys, engine: AsyncEngine) -> None:
    made = await keys.create_key(LOCAL, KeyCreate(name="agent", scopes=[Scope.KB_READ, Scope.CRAWL], knowledge_bases=["team"]))
    assert await keys.principal(made.key) == Principal(f"key:{made.id}", frozenset({Scope.KB_READ, Scope.CRAWL}), frozenset({"team"}))
    stored = str(await row(engine, made.id)) + str(await keys.keys(LOCAL))
    assert made.key not in stored
    assert made.key.rpartition("_")[2] not in stored


async def test_an_administrators_key_is_for_everything_everywhere(keys: ApiKeys) -> None:
    made = await keys.create_key(LOCAL, KeyCreate(scopes=[Scope.ADMIN], knowledge_bases=["team"], principal="ops"))
    assert await keys.principal(made.key) == Principal("ops", frozenset({Scope.ADMIN}), None)


def test_a_key_without_further_words_reads_the_default_base() -> None:
    request = KeyCreate()
    assert request.scopes == [Scope.KB_READ, Scope.JOBS_READ]
    assert request.knowledge_bases == ["default"]


@pytest.mark.parametrize(
    "given",
    [
        {"principal": "shield:samples"},
        {"principal": " a"},
        {"principal": "a\x00"},
        {"scopes": []},
        {"scopes": ["root"]},
        {"expires_in_days": 0},
        {"x": 1},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KeyCreate.model_validate(given)


async def test_a_key_that_is_wrong_in_any_way_gets_one_answer(keys: ApiKeys, engine: AsyncEngine) -> None:
    expired = await keys.create_key(LOCAL, KeyCreate(expires_in_days=1))
    await change(engine, expired.id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoked = await keys.create_key(LOCAL, KeyCreate())
    await keys.revoke_key(LOCAL, revoked.id)
    good = await keys.create_key(LOCAL, KeyCreate())
    wrong = good.key[:-1] + ("a" if good.key[-1] != "a" else "b")
    swapped = f"shk_{expired.id}_{good.key[13:]}"
    unknown = f"shk_zzzzzzzz_{good.key[13:]}"
    for key in (expired.key, revoked.key, wrong, swapped, unknown, good.key + "a", good.key.upper(), "", "shk_", "a.b.c"):
        with pytest.raises(CredentialInvalid) as caught:
            await keys.principal(key)
        assert caught.value.public() == CredentialInvalid().public()
    assert (await keys.principal(good.key)).name == f"key:{good.id}"


async def test_the_last_use_is_written_at_most_once_a_minute(keys: ApiKeys, engine: AsyncEngine) -> None:
    made = await keys.create_key(LOCAL, KeyCreate())
    await asyncio.gather(*(keys.principal(made.key) for _ in range(5)))
    first = (await row(engine, made.id))["last_used_at"]
    assert first is not None
    await keys.principal(made.key)
    assert (await row(engine, made.id))["last_used_at"] == first
    await change(engine, made.id, last_used_at=first - timedelta(seconds=61))
    await keys.principal(made.key)
    assert (await row(engine, made.id))["last_used_at"] >= first


async def test_a_rotated_key_has_a_successor_and_goes_on_for_its_grace_period(keys: ApiKeys, engine: AsyncEngine) -> None:
    old = await keys.create_key(
        LOCAL, KeyCreate(name="n", scopes=[Scope.KB_WRITE], knowledge_bases=["a"], principal="p", expires_in_days=10)
    )
    new = await keys.rotate_key(LOCAL, old.id, KeyRotate(grace_seconds=100))
    assert await keys.principal(new.key) == await keys.principal(old.key)
    assert (new.name, new.principal) == ("n", "p")
    assert new.expires_at is not None
    assert new.expires_at - new.created_at == timedelta(days=10)
    ends = (await row(engine, old.id))["expires_at"]
    assert timedelta(seconds=90) < ends - datetime.now(UTC) <= timedelta(seconds=100)
    shown = {key.id: key for key in (await keys.keys(LOCAL)).keys}
    assert shown[old.id].replaced_by == new.id
    assert shown[old.id].valid


async def test_a_rotation_without_grace_ends_the_old_key_at_once_and_never_prolongs_it(keys: ApiKeys, engine: AsyncEngine) -> None:
    old = await keys.create_key(LOCAL, KeyCreate())
    await keys.rotate_key(LOCAL, old.id, KeyRotate(grace_seconds=0))
    with pytest.raises(CredentialInvalid):
        await keys.principal(old.key)
    short = await keys.create_key(LOCAL, KeyCreate(expires_in_days=1))
    soon = datetime.now(UTC) + timedelta(seconds=30)
    await change(engine, short.id, expires_at=soon)
    await keys.rotate_key(LOCAL, short.id, KeyRotate(grace_seconds=86_400))
    assert (await row(engine, short.id))["expires_at"] == soon


async def test_only_a_valid_key_is_rotated_and_only_once_whoever_asks_at_once(keys: ApiKeys) -> None:
    revoked = await keys.create_key(LOCAL, KeyCreate())
    await keys.revoke_key(LOCAL, revoked.id)
    for key_id in (revoked.id, "zzzzzzzz"):
        with pytest.raises(UnknownKey):
            await keys.rotate_key(LOCAL, key_id, KeyRotate())
    old = await keys.create_key(LOCAL, KeyCreate())
    results = await asyncio.gather(*(keys.rotate_key(LOCAL, old.id, KeyRotate()) for _ in range(5)), return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, UnknownKey) for result in results if isinstance(result, BaseException))


async def test_revoking_is_at_once_and_final(keys: ApiKeys) -> None:
    made = await keys.create_key(LOCAL, KeyCreate())
    first = await keys.revoke_key(LOCAL, made.id)
    assert not first.valid
    assert (await keys.revoke_key(LOCAL, made.id)).revoked_at == first.revoked_at
    with pytest.raises(UnknownKey):
        await keys.revoke_key(LOCAL, "zzzzzzzz")


async def test_only_administrators_manage_keys(keys: ApiKeys) -> None:
    made = await keys.create_key(LOCAL, KeyCreate())
    for attempt in (
        keys.keys(NOT_ADMIN),
        keys.create_key(NOT_ADMIN, KeyCreate()),
        keys.revoke_key(NOT_ADMIN, made.id),
        keys.rotate_key(NOT_ADMIN, made.id, KeyRotate()),
        keys.revoke_key(NOT_ADMIN, "zzzzzzzz"),
    ):
        with pytest.raises(Forbidden):
            await attempt


async def test_every_change_of_a_key_leaves_a_record_without_its_secret(keys: ApiKeys, engine: AsyncEngine) -> None:
    made = await keys.create_key(LOCAL, KeyCreate(knowledge_bases=["a"]))
    new = await keys.rotate_key(LOCAL, made.id, KeyRotate())
    await keys.revoke_key(LOCAL, new.id)
    async with engine.connect() as connection:
        records = (await connection.execute(sa.select(audit_records).order_by(audit_records.c.id))).mappings().all()
    assert [(record["action"], record["subject"], record["principal"]) for record in records] == [
        ("key.create", made.id, "local"), ("key.rotate", new.id, "local"), ("key.revoke", new.id, "local"),
    ]  # fmt: skip
    assert records[0]["details"] == {"principal": f"key:{made.id}", "scopes": "jobs:read kb:read", "knowledge_bases": "a"}
    assert made.key not in str(records)
    assert new.key not in str(records)


async def test_a_scope_that_this_version_does_not_know_grants_nothing(keys: ApiKeys, engine: AsyncEngine) -> None:
    made = await keys.create_key(LOCAL, KeyCreate())
    await change(engine, made.id, scopes=["kb:read", "of-a-later-version"])
    assert (await keys.principal(made.key)).scopes == {Scope.KB_READ}


async def test_without_a_database_nobody_is_let_in_and_nobody_is_refused(data_dir: Path) -> None:
    engine = create_engine(f"postgresql://nobody@/none?host={data_dir}", PostgresSettings())
    with pytest.raises(DatabaseUnavailable):
        await ApiKeys(engine, load().auth).principal("shk_abcdefgh_" + "a" * 43)
    await engine.dispose()


async def test_in_a_fleet_the_first_key_is_made_on_the_database_itself(
    dsn: str, keys: ApiKeys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("MODE", "server"),
        ("POSTGRES_DSN", dsn),
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("QDRANT_URL", "http://127.0.0.1:1"),
    ):
        monkeypatch.setenv(f"SHIELD_{name}", value)
    assert await asyncio.to_thread(run, ["keys", "create", "--admin"]) == 0
    printed = capsys.readouterr()
    assert (await keys.principal(printed.out.strip())).scopes == {Scope.ADMIN}
    assert "shown this once" in printed.err
    assert await asyncio.to_thread(run, ["keys", "create", "--scope", "root"]) == 2
    assert await asyncio.to_thread(run, ["kb", "list"]) == 2  # everything else goes through an orchestrator
    assert "SHIELD_URL" in capsys.readouterr().err


async def test_a_key_made_elsewhere_is_let_in_once_and_never_brought_back(keys: ApiKeys, engine: AsyncEngine) -> None:
    key = form.mint().secret
    request = KeyCreate(name="bootstrap", scopes=[Scope.ADMIN])
    assert await keys.adopt_key(LOCAL, key, request)
    assert await keys.principal(key) == Principal(f"key:{key[4:12]}", frozenset({Scope.ADMIN}), None)
    assert not await keys.adopt_key(LOCAL, key, request)
    await keys.revoke_key(LOCAL, key[4:12])
    assert not await keys.adopt_key(LOCAL, key, request)
    with pytest.raises(CredentialInvalid):
        await keys.principal(key)
    assert key not in str(await row(engine, key[4:12]))
    async with engine.connect() as connection:
        actions = (await connection.execute(sa.select(audit_records.c.action).where(audit_records.c.subject == key[4:12]))).scalars()
        assert sorted(actions) == ["key.create", "key.revoke"]


async def test_what_is_no_key_or_has_anothers_id_is_not_let_in(keys: ApiKeys) -> None:
    key, request = form.mint().secret, KeyCreate()
    await keys.adopt_key(LOCAL, key, request)
    for other in ("password", "", f"{key[:12]}_{'x' * 43}"):
        with pytest.raises(ConfigInvalid):
            await keys.adopt_key(LOCAL, other, request)
    with pytest.raises(Forbidden):
        await keys.adopt_key(NOT_ADMIN, form.mint().secret, request)
    await keys.principal(key)


def test_keys_are_ensured_from_files_on_the_command_line(
    dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, value in {
        "MODE": "server",
        "POSTGRES_DSN": dsn,
        "REDIS_URL": "redis://127.0.0.1:1",
        "QDRANT_URL": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(f"SHIELD_{name}", value)
    for name in ("admin", "smoke", "probe"):
        (tmp_path / name).write_text(form.mint().secret + "\n")
    roles = ["--admin", str(tmp_path / "admin"), "--member", str(tmp_path / "smoke"), "--reader", str(tmp_path / "probe"), "--kb", "team"]
    assert run(["keys", "ensure", *roles]) == 0
    assert capsys.readouterr().out == "admin: added\nsmoke: added\nprobe: added\n"
    assert run(["keys", "ensure", *roles]) == 0
    assert capsys.readouterr().out == "admin: known\nsmoke: known\nprobe: known\n"
    assert run(["keys", "list", "--json"]) == 0
    listed = {key["name"]: (key["scopes"], key["knowledge_bases"]) for key in json.loads(capsys.readouterr().out)["keys"]}
    assert listed["admin"] == (["admin"], None)
    assert listed["smoke"] == (["crawl", "jobs:read", "kb:read", "kb:write"], ["team"])
    assert listed["probe"] == (["jobs:read", "kb:read"], ["team"])
    assert run(["keys", "ensure", "--admin", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err
