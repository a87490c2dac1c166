"""Which credential counts in which mode, and what a refusal says."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import HTTPConnection

from shield.auth import LOCAL, Principal, Scope
from shield.auth.authenticator import Authenticator, Challenge, caller_of, resource_metadata
from shield.auth.hop import HopTokens
from shield.errors import ConfigInvalid, CredentialInvalid, Forbidden, Unauthenticated
from shield.settings import load

SECRET = "s" * 40
ALICE = Principal("alice", frozenset({Scope.KB_READ}), frozenset())
KEY = "shk_abcdefgh_" + "a" * 43


class OneKey:
    async def principal(self, key: str) -> Principal:
        if key != KEY:
            raise CredentialInvalid
        return ALICE


def request(*authorization: str) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [(b"authorization", value.encode()) for value in authorization]})


def hop() -> HopTokens:
    return HopTokens(SECRET, load().auth.clock_skew)


@pytest.mark.parametrize("values", [(), ("Bearer anything",), ("Basic x",), ("Bearer a", "Bearer b"), (f"Bearer {KEY}",)])
async def test_without_a_mode_everybody_is_the_local_user(values: tuple[str, ...]) -> None:
    assert await Authenticator.of(load())(request(*values)) == LOCAL
    assert await Authenticator.of(load(auth={"hop_secret": SECRET}))(request(*values)) == LOCAL


@pytest.mark.parametrize("auth", [{}, {"mode": "api-key"}, {"mode": "oidc", "issuer": "https://id.example", "audience": "x"}])
async def test_our_own_token_names_the_principal_in_every_mode(auth: dict[str, Any]) -> None:
    authenticator = Authenticator.of(load(auth={**auth, "hop_secret": SECRET}), OneKey())
    assert await authenticator(request(f"Bearer {hop().mint(ALICE)}")) == ALICE
    forged = HopTokens("x" * 40, load().auth.clock_skew).mint(LOCAL)
    with pytest.raises(CredentialInvalid):
        await authenticator(request(f"Bearer {forged}"))
    with pytest.raises(CredentialInvalid):
        await authenticator(request(f"Bearer {hop().mint(ALICE)}", f"Bearer {hop().mint(LOCAL)}"))


async def test_our_own_token_is_nothing_where_no_secret_is_set() -> None:
    with pytest.raises(CredentialInvalid):
        await Authenticator.of(load(auth={"mode": "api-key"}), OneKey())(request(f"Bearer {hop().mint(LOCAL)}"))


async def test_with_keys_only_a_valid_key_counts() -> None:
    authenticator = Authenticator.of(load(auth={"mode": "api-key"}), OneKey())
    assert await authenticator(request(f"Bearer {KEY}")) == ALICE
    with pytest.raises(Unauthenticated):
        await authenticator(request())
    for value in (f"Bearer {KEY}x", "Basic x", "Bearer a.b.c"):
        with pytest.raises(CredentialInvalid):
            await authenticator(request(value))
    with pytest.raises(ConfigInvalid, match="SHIELD_AUTH_HOP_SECRET"):
        Authenticator.of(load(auth={"mode": "api-key"}))


def test_the_challenge_names_scopes_and_with_oidc_where_to_learn_more() -> None:
    plain = Challenge.of(load(auth={"mode": "api-key"}))
    assert plain.headers(Unauthenticated(), "/jobs") == {
        "WWW-Authenticate": 'Bearer realm="shield", scope="kb:read kb:write crawl jobs:read"'
    }
    assert 'error="invalid_token"' in plain.headers(CredentialInvalid(), "/jobs")["WWW-Authenticate"]
    assert plain.headers(Forbidden(), "/jobs") == {}
    oidc = Challenge.of(load(public_url="https://s.example/", auth={"mode": "oidc", "issuer": "https://id.example"}))
    said = oidc.headers(Unauthenticated(), "/mcp")["WWW-Authenticate"]
    assert said.endswith('resource_metadata="https://s.example/.well-known/oauth-protected-resource/mcp"')
    said = oidc.headers(Unauthenticated(), "/jobs")["WWW-Authenticate"]
    assert said.endswith('resource_metadata="https://s.example/.well-known/oauth-protected-resource"')


def test_the_metadata_names_the_resource_and_its_issuer() -> None:
    settings = load(public_url="https://s.example/", auth={"mode": "oidc", "issuer": "https://id.example"})
    said = resource_metadata(settings, "/mcp")
    assert said["resource"] == "https://s.example/mcp"
    assert said["authorization_servers"] == ["https://id.example"]
    assert said["bearer_methods_supported"] == ["header"]


def test_nobody_is_taken_for_somebody_where_nobody_asked() -> None:
    with pytest.raises(Unauthenticated):
        caller_of({})
    with pytest.raises(Unauthenticated):
        caller_of({"shield.principal": "alice"})
    assert caller_of({"shield.principal": ALICE}) is ALICE
