"""The token between our own processes: only ours, only now, only for what it says."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from shield.auth import LOCAL, Principal, Scope
from shield.auth.hop import LIFE, TYPE, Audience, HopTokens, Service
from shield.errors import ConfigInvalid, CredentialInvalid

SECRET = "0123456789abcdef0123456789abcdef"
SKEW = 5
NOW = 1_800_000_000


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hop(clock: Clock) -> HopTokens:
    return HopTokens(SECRET, timedelta(seconds=SKEW), clock)


@settings(max_examples=30)
@given(
    st.builds(
        Principal,
        st.text(st.characters(min_codepoint=33, max_codepoint=0x17F, exclude_categories=["Zs", "Cc", "Cf", "Cn"]), min_size=1, max_size=60),
        st.frozensets(st.sampled_from(Scope)),
        st.none() | st.frozensets(st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True), max_size=5),
    )
)
def test_a_principal_arrives_as_it_was_sent(who: Principal) -> None:
    hop = HopTokens(SECRET, timedelta(seconds=SKEW))
    assert hop.principal(hop.mint(who)) == who


def test_a_token_ends_after_a_minute(hop: HopTokens, clock: Clock) -> None:
    token = hop.mint(LOCAL)
    clock.now += LIFE + SKEW - 1
    assert hop.principal(token) == LOCAL
    clock.now += 2
    with pytest.raises(CredentialInvalid):
        hop.principal(token)


def test_a_token_of_the_future_is_refused_beyond_the_skew(hop: HopTokens, clock: Clock) -> None:
    token = hop.mint(LOCAL)
    clock.now -= SKEW - 1
    hop.principal(token)
    clock.now -= 3
    with pytest.raises(CredentialInvalid):
        hop.principal(token)


def test_a_question_about_keys_and_a_call_for_somebody_are_different_tokens(hop: HopTokens) -> None:
    hop.check_introspection(hop.mint_introspection())
    with pytest.raises(CredentialInvalid):
        hop.principal(hop.mint_introspection())
    with pytest.raises(CredentialInvalid):
        hop.check_introspection(hop.mint(LOCAL))


def signed(claims: dict[str, Any], header: dict[str, Any] | None = None, secret: str = SECRET) -> str:
    body = {
        "iss": Service.MCP, "aud": Audience.ORCHESTRATOR, "sub": "alice", "iat": NOW, "exp": NOW + LIFE, "jti": "1", "scope": "kb:read", "kbs": ["a"],
        **claims,
    }  # fmt: skip
    head = {"alg": "HS256", "typ": TYPE, **(header or {})}
    return jwt.encode(
        {k: v for k, v in head.items() if v is not None},
        {k: v for k, v in body.items() if v is not None},
        OctKey.import_key(secret.encode()),
        algorithms=["HS256", "HS512"],
        default_type=None,
    )


def test_the_hand_made_token_is_good_until_something_is_changed(hop: HopTokens) -> None:
    assert hop.principal(signed({})) == Principal("alice", frozenset({Scope.KB_READ}), frozenset({"a"}))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://id.example"}, {"iss": None}, {"aud": "shield"}, {"aud": None}, {"aud": [Audience.ORCHESTRATOR, "x"]}, {"sub": None}, {"sub": ""},
        {"sub": "a\x00"}, {"sub": 7}, {"exp": None}, {"exp": NOW + LIFE + 1}, {"exp": NOW + 10**9}, {"exp": "soon"}, {"iat": None}, {"iat": NOW + 100},
        {"iat": NOW - 3600, "exp": NOW + 30}, {"jti": None}, {"jti": 7}, {"scope": None}, {"scope": "root"}, {"scope": ["kb:read"]}, {"kbs": "a"}, {"kbs": [1]},
        {"nbf": NOW + 1000}, {"exp": float("inf")}, {"iat": float("nan")},
    ],
)  # fmt: skip
def test_a_claim_that_is_wrong_is_refused(claims: dict[str, Any], hop: HopTokens) -> None:
    with pytest.raises(CredentialInvalid):
        hop.principal(signed(claims))


@pytest.mark.parametrize("header", [{"typ": "JWT"}, {"typ": None}, {"alg": "HS512"}, {"crit": ["x"], "x": 1}])
def test_another_type_or_algorithm_is_refused(header: dict[str, Any], hop: HopTokens) -> None:
    try:
        token = signed({}, header)
    except Exception:  # noqa: BLE001  the library does not even sign it: then by hand
        parts = signed({}).split(".")
        parts[0] = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": TYPE, **header}).encode()).decode().rstrip("=")
        token = ".".join(parts)
    with pytest.raises(CredentialInvalid):
        hop.principal(token)


def test_another_secret_no_signature_and_another_kind_of_key_are_refused(hop: HopTokens) -> None:
    good = signed({})
    head, body, _ = good.split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": TYPE}).encode()).decode().rstrip("=")
    rsa = jwt.encode({"alg": "RS256", "typ": TYPE}, {"sub": "alice"}, RSAKey.generate_key(2048))
    for token in (signed({}, secret="f" * 32), f"{head}.{body}.", f"{none}.{body}.", f"{head}.{body}", rsa, good[:-2], "", "a.b.c", "...."):
        with pytest.raises(CredentialInvalid):
            hop.principal(token)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="32 bytes"):
        HopTokens("x" * 31, timedelta(0))
    HopTokens("ä" * 16, timedelta(0))  # bytes count
    with pytest.raises(ConfigInvalid, match="not a secret"):
        HopTokens(RSAKey.generate_key(2048).as_pem(private=False).decode(), timedelta(0))
