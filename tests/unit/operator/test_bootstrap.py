"""The Secrets of an installation: made once, completed, never changed, never shown."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from shield_operator import bootstrap
from shield_operator.bootstrap import SECRETS, read_spec
from shield_operator.cluster import AlreadyExists, Conflict, Forbidden
from shield_operator.main import main
from shield_operator.settings import ConfigurationError
from tests.unit.operator.api_server import ApiServer

SPEC = [
    {"id": "stores", "name": "shield-stores", "keys": {"password": {"random": "hex"}}},
    {
        "id": "services",
        "name": "shield-services",
        "keys": {"DSN": {"text": "postgresql://shield:{stores/password}@db/shield"}, "COPY": {"text": "{services/DSN}"}},
    },
    {"id": "keys", "name": "shield-keys", "keys": {"admin": {"random": "api-key"}}},
]


@pytest.fixture
def cluster() -> ApiServer:
    return ApiServer(lambda: "2026-11-23T12:00:00Z")


async def ensure(cluster: ApiServer, spec: list[dict[str, Any]] | None = None) -> None:
    await bootstrap.ensure(cluster, "shield", read_spec(json.dumps(spec or SPEC)))


def values(cluster: ApiServer, name: str) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in cluster.of(SECRETS)[name]["data"].items()}


async def test_what_is_missing_is_made_and_may_use_what_was_made_before(cluster: ApiServer) -> None:
    await ensure(cluster)
    password = values(cluster, "shield-stores")["password"]
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    dsn = f"postgresql://shield:{password}@db/shield"
    assert values(cluster, "shield-services") == {"DSN": dsn, "COPY": dsn}


async def test_an_api_key_has_the_form_that_shield_knows(cluster: ApiServer) -> None:
    from shield.auth import keys

    await ensure(cluster)
    assert keys.key_id(values(cluster, "shield-keys")["admin"])


async def test_a_second_run_writes_nothing(cluster: ApiServer) -> None:
    await ensure(cluster)
    before = cluster.of(SECRETS)
    cluster.writes.clear()
    await ensure(cluster)
    assert cluster.writes == []
    assert cluster.of(SECRETS) == before


async def test_a_later_release_may_ask_for_more_keys_and_changes_no_other(cluster: ApiServer) -> None:
    await ensure(cluster, SPEC[:1])
    before = values(cluster, "shield-stores")
    await ensure(cluster, [{**SPEC[0], "keys": {"password": {"random": "hex"}, "more": {"text": "[{stores/password}]"}}}])
    assert values(cluster, "shield-stores") == {**before, "more": f"[{before['password']}]"}


@pytest.mark.parametrize("error", [AlreadyExists("there"), Conflict("changed")])
async def test_whoever_was_faster_wins(cluster: ApiServer, error: Exception) -> None:
    """The other one's Secret appears between our look and our write."""
    theirs = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "shield-stores", "namespace": "shield"},
        "data": {"password": "dGhlaXJz"},
    }

    def refuse(verb: str, kind: Any, name: str) -> Exception | None:
        if verb == "create" and not cluster.of(SECRETS):
            cluster.put(SECRETS, theirs)
            return error
        return None

    cluster.refuse = refuse
    await ensure(cluster)
    assert values(cluster, "shield-stores") == {"password": "theirs"}
    assert "theirs@db" in values(cluster, "shield-services")["DSN"]


async def test_endless_rivals_are_given_up(cluster: ApiServer) -> None:
    cluster.refuse = lambda verb, kind, name: Conflict("again") if verb == "create" else None
    with pytest.raises(Conflict, match="written by others all the time"):
        await ensure(cluster)


async def test_a_permission_that_is_missing_is_told(cluster: ApiServer) -> None:
    cluster.refuse = lambda verb, kind, name: Forbidden("no") if verb == "create" else None
    with pytest.raises(Forbidden):
        await ensure(cluster)


async def test_secrets_are_deleted_by_name_and_those_that_are_gone_are_no_error(cluster: ApiServer) -> None:
    await ensure(cluster)
    await bootstrap.delete(cluster, "shield", ["shield-stores", "shield-keys", "shield-none"])
    assert set(cluster.of(SECRETS)) == {"shield-services"}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ([{"id": "a", "name": "a", "keys": {"k": {"text": "{b/c}"}}}], r"no value \{b/c\}"),
        ([{"id": "a", "name": "a", "keys": {"k": {}}}], "either random or a text"),
        ([{"id": "a", "name": "a", "keys": {"k": {"random": "hex", "text": "x"}}}], "either random or a text"),
        ([{"id": "a", "name": "A_", "keys": {}}], "--spec: 0/name"),
        ([{"id": "a", "name": "a", "keys": {"k": {"random": "dice"}}}], "--spec: 0/keys/k/random"),
    ],
)
async def test_a_specification_that_makes_no_sense_is_refused(cluster: ApiServer, spec: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        await ensure(cluster, spec)


async def test_no_value_is_ever_logged(cluster: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    await ensure(cluster)
    printed = capsys.readouterr()
    made = [value for name in cluster.of(SECRETS) for value in values(cluster, name).values()]
    assert made
    assert not [value for value in made if value in printed.out + printed.err]


def test_the_command_says_what_is_wrong_with_a_specification(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["secrets", "ensure", "--namespace", "shield", "--spec", "{"]) == 2
    printed = capsys.readouterr()
    assert "--spec" in printed.out + printed.err
