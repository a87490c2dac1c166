"""What callers meet on the wire: refusals before a body is read, the metadata of OIDC, the question between our processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shield.api.app import create_app
from shield.api.dependencies import Introspection
from shield.auth import LOCAL, Principal, Scope
from shield.auth.authenticator import Authenticator
from shield.auth.hop import HopTokens
from shield.errors import (
    ConfigInvalid,
    CredentialInvalid,
    DatabaseUnavailable,
    DependencyMisconfigured,
    Forbidden,
    IdentityUnavailable,
    UnknownKey,
)
from shield.service.introspection import Introspection as RemoteKeys
from shield.service.models import KeyRotate
from shield.service.remote import RemoteShield
from shield.settings import Settings, load
from tests.integration.api.conftest import serving
from tests.unit.api.test_problems import assert_problem, client_of
from tests.unit.stand_in import UPLOAD, StandIn

SECRET = "the secret of the fleet that these tests play"
KEY = "shk_abcdefgh_" + "a" * 43
ALICE = Principal("alice", frozenset({Scope.KB_READ}), frozenset({"team"}))


class Keys:
    """Knows one key, and counts the questions."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.known: dict[str, Principal] = {KEY: ALICE}
        self.failure: Exception | None = None

    async def principal(self, key: str) -> Principal:
        self.asked.append(key)
        if self.failure:
            raise self.failure
        if key not in self.known:
            raise CredentialInvalid
        return self.known[key]


@pytest.fixture
def settings() -> Settings:
    return load(port=0, auth={"mode": "api-key", "hop_secret": SECRET}, api={"linger": 0.2})


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def hop(settings: Settings) -> HopTokens:
    return HopTokens(SECRET, settings.auth.clock_skew)


@pytest.fixture
async def client(settings: Settings, keys: Keys, hop: HopTokens) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(StandIn(), settings, principal_of=Authenticator.of(settings, keys), introspection=Introspection(keys, hop))
    async with client_of(app) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_mode_without_anybody_who_checks_does_not_start(settings: Settings) -> None:
    with pytest.raises(ConfigInvalid, match="someone who checks"):
        create_app(StandIn(), settings)


async def test_who_shows_nothing_is_told_so_on_every_address_that_is_not_public(client: httpx.AsyncClient) -> None:
    for method, path in (
        ("GET", "/jobs"),
        ("POST", "/find"),
        ("GET", "/no/such"),
        ("PATCH", "/jobs"),
        ("GET", "/healthz/"),
        ("POST", "/healthz"),
    ):
        refused = await client.request(method, path)
        assert_problem(refused, "auth.required")
        assert refused.headers["www-authenticate"].startswith('Bearer realm="shield", scope="kb:read')
    refused = await client.get("/jobs", headers=bearer("wrong"))
    assert_problem(refused, "auth.invalid")
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert (await client.get("/jobs", headers=bearer(KEY))).is_success
    for path in ("/healthz", "/readyz", "/docs", "/docs/errors/auth.required", "/openapi.json"):
        assert (await client.get(path)).is_success, path


async def test_a_key_in_the_address_is_no_key(client: httpx.AsyncClient) -> None:
    for name in ("token", "access_token", "api_key"):
        assert_problem(await client.get("/jobs", params={name: KEY}), "auth.required")
    assert_problem(await client.get("/jobs", headers={"X-Api-Key": KEY, "Cookie": f"key={KEY}"}), "auth.required")


async def test_who_shows_nothing_is_refused_before_his_body_is_read(settings: Settings, keys: Keys) -> None:
    app = create_app(StandIn(), settings, principal_of=Authenticator.of(settings, keys))
    async with serving(app) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST /notes HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000000\r\n\r\n{{".encode())
        async with asyncio.timeout(5):
            assert b"401" in await reader.readline()
        writer.close()


async def test_what_the_scope_lacks_is_named_in_the_header_too(settings: Settings, keys: Keys) -> None:
    stand_in = StandIn()
    stand_in.raises = Forbidden("This needs the scope `kb:write`.", scope="kb:write")
    async with client_of(create_app(stand_in, settings, principal_of=Authenticator.of(settings, keys))) as client:
        refused = await client.get("/jobs", headers=bearer(KEY))
    assert_problem(refused, "auth.forbidden")
    assert refused.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="kb:write"'


async def test_a_description_says_which_operations_ask_for_a_credential(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    assert described["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert described["paths"]["/jobs"]["get"]["security"] == [{"bearer": []}]
    assert "security" not in described["paths"]["/healthz"]["get"]


async def test_a_database_that_is_away_is_no_refusal(client: httpx.AsyncClient, keys: Keys) -> None:
    keys.failure = DatabaseUnavailable(retry_after=2)
    answer = await client.get("/jobs", headers=bearer(KEY))
    assert_problem(answer, "dependency.database_unavailable")
    assert "www-authenticate" not in answer.headers


async def test_oidc_clients_find_their_issuer(keys: Keys) -> None:
    settings = load(port=0, public_url="http://shield.test", auth={"mode": "oidc", "issuer": "https://id.example"})
    app = create_app(StandIn(), settings, principal_of=Authenticator.of(settings))
    async with client_of(app) as client:
        refused = await client.post("/mcp", json={})
        assert_problem(refused, "auth.required")
        address = refused.headers["www-authenticate"].partition('resource_metadata="')[2].rstrip('"')
        assert address == "http://shield.test/.well-known/oauth-protected-resource/mcp"
        found = (await client.get(address.removeprefix("http://shield.test"))).json()
        assert found["resource"] == "http://shield.test/mcp"
        assert found["authorization_servers"] == ["https://id.example"]
        assert (await client.get("/.well-known/oauth-protected-resource")).json()["resource"] == "http://shield.test"


async def test_without_oidc_there_is_no_metadata(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/.well-known/oauth-protected-resource"), "request.not_found")


# -- the MCP server of a fleet asks whom a key belongs to ------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_only_our_own_processes_are_told_whom_a_key_belongs_to(client: httpx.AsyncClient, hop: HopTokens, keys: Keys) -> None:
    for headers in ({}, bearer(KEY), bearer(hop.mint(LOCAL)), bearer(HopTokens("x" * 40, load().auth.clock_skew).mint_introspection())):
        refused = await client.post("/auth/introspect", content=KEY, headers=headers)
        assert refused.status_code == 401
    assert keys.asked == []
    told = await client.post("/auth/introspect", content=KEY, headers=bearer(hop.mint_introspection()))
    assert told.json() == {"active": True, "principal": "alice", "scopes": ["kb:read"], "knowledge_bases": ["team"]}
    for wrong in (b"", b"\xff\x00", b"shk_", b"a" * 20_000):
        told = await client.post("/auth/introspect", content=wrong, headers=bearer(hop.mint_introspection()))
        assert told.status_code == 422 or told.json() == {"active": False}


async def test_what_was_told_is_remembered_for_a_moment(client: httpx.AsyncClient, hop: HopTokens, keys: Keys, settings: Settings) -> None:
    clock = Clock()
    async with RemoteKeys("http://127.0.0.1:8000", hop, settings, client, clock=clock) as remote:
        for _ in range(3):
            assert await remote.principal(KEY) == ALICE
        assert len(keys.asked) == 1
        keys.known.clear()  # revoked
        clock.now += 29
        assert await remote.principal(KEY) == ALICE
        clock.now += 2
        for _ in range(2):
            with pytest.raises(CredentialInvalid):
                await remote.principal(KEY)
        assert len(keys.asked) == 3
        keys.known[KEY] = LOCAL
        assert await remote.principal(KEY) == LOCAL  # all bases
        with pytest.raises(CredentialInvalid):
            await remote.principal("no key at all")
        assert len(keys.asked) == 4


@pytest.mark.parametrize("kind", ["away", "secret", "stranger", "database"])
async def test_an_orchestrator_that_cannot_tell_is_a_503(
    kind: str, client: httpx.AsyncClient, hop: HopTokens, keys: Keys, settings: Settings
) -> None:
    if kind == "away":
        client = httpx.AsyncClient(transport=httpx.MockTransport(_refuse))
    elif kind == "stranger":
        client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, text="hello")))
    elif kind == "secret":
        hop = HopTokens("another secret of another installation", settings.auth.clock_skew)
    else:
        keys.failure = DatabaseUnavailable()
    async with RemoteKeys("http://127.0.0.1:8000", hop, settings, client) as remote:
        with pytest.raises(IdentityUnavailable) as caught:
            await remote.principal(KEY)
    assert caught.value.retry_after


def _refuse(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody there")


# -- the client's side -----------------------------------------------------------------------------------------------------


async def test_a_client_shows_its_credential_and_meets_the_errors_of_the_server(settings: Settings, keys: Keys, hop: HopTokens) -> None:
    stand_in = StandIn()
    app = create_app(stand_in, settings, principal_of=Authenticator.of(settings, keys))
    async with serving(app) as url:
        async with RemoteShield(url, credentials=lambda _who: KEY) as remote:
            await remote.jobs(LOCAL)
            assert stand_in.calls[-1][1]["who"] == ALICE  # the credential counts, never the name
            with pytest.raises(UnknownKey):
                await remote.rotate_key(LOCAL, "../jobs", KeyRotate())
        async with RemoteShield(url, credentials=hop.mint, delegated=True) as remote:
            await remote.jobs(ALICE)
            assert stand_in.calls[-1][1]["who"] == ALICE
        async with RemoteShield(url, credentials=lambda _who: "wrong") as remote:
            with pytest.raises(CredentialInvalid):
                await remote.jobs(LOCAL)
        forger = HopTokens("another secret of another installation", settings.auth.clock_skew)
        async with RemoteShield(url, credentials=forger.mint, delegated=True) as remote:
            with pytest.raises(DependencyMisconfigured, match="SHIELD_AUTH_HOP_SECRET"):  # the installation's fault, not the caller's
                await remote.jobs(LOCAL)


async def test_health_and_one_time_urls_need_no_credential(settings: Settings, keys: Keys) -> None:
    seen: list[Any] = []

    def nobody(who: Principal) -> str:
        seen.append(who)
        return KEY

    async def content() -> AsyncIterator[bytes]:
        yield b"x"

    app = create_app(StandIn(), settings, principal_of=Authenticator.of(settings, keys))
    async with serving(app) as url, RemoteShield(url, credentials=nobody) as remote:
        assert (await remote.health()).status == "ok"
        assert (await remote.put_upload(UPLOAD, "t", content())).stored
    assert seen == []
