"""Tokens of an identity provider, checked against a real one: its keys, its faults, and every way a token can be wrong."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from shield.auth import Scope
from shield.auth.bearer import MAX_FOREIGN, bearer
from shield.auth.hop import HopTokens
from shield.auth.jwks import Jwks
from shield.auth.oidc import OidcVerifier
from shield.errors import CredentialInvalid, IdentityUnavailable
from shield.settings import Settings, load
from tests.peers.oidc import Issuer, rsa

PUBLIC = "https://shield.test"


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer(audience=PUBLIC) as issuer:
        yield issuer


def settings_of(issuer: Issuer, **auth: Any) -> Settings:
    return load(public_url=PUBLIC, auth={"mode": "oidc", "issuer": issuer.url, "jwks_pause": 0, "clock_skew": 5, **auth})


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# -- who it is ------------------------------------------------------------------------------------------------------------


async def test_a_token_names_its_principal_scopes_and_knowledge_bases(issuer: Issuer) -> None:
    verifier = OidcVerifier(settings_of(issuer))
    who = await verifier.principal(issuer.token(sub="alice", scope="openid kb:read jobs:read", knowledge_bases=["team", "docs"]))
    assert who.name == "oidc:alice"
    assert who.scopes == {Scope.KB_READ, Scope.JOBS_READ}
    assert who.knowledge_bases == frozenset({"team", "docs"})
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
    await verifier.principal(issuer.token())
    assert len(issuer.asked) == 2  # no call per request


@pytest.mark.parametrize(
    ("claims", "scopes", "bases"),
    [
        ({}, set(), {"default"}),
        ({"scp": ["kb:write", 7, "crawl"]}, {Scope.KB_WRITE, Scope.CRAWL}, {"default"}),
        ({"scope": {"kb:read": True}}, set(), {"default"}),
        ({"scope": "KB:READ"}, set(), {"default"}),
        ({"scope": "reader"}, {Scope.KB_READ, Scope.JOBS_READ}, {"default"}),
        ({"realm_access": {"roles": ["ops", "x"]}}, {Scope.ADMIN}, None),
        ({"realm_access": {"roles": ["kb:read"]}}, set(), {"default"}),  # a group counts through the map only
        ({"realm_access": "ops"}, set(), {"default"}),
        ({"knowledge_bases": "*"}, set(), None),
        ({"knowledge_bases": "a b"}, set(), {"a", "b"}),
        ({"knowledge_bases": []}, set(), set()),
        ({"knowledge_bases": {"a": 1}}, set(), set()),
        ({"knowledge_bases": ["a", "../b", "A", "", "x" * 41, "\x00", 7]}, set(), {"a"}),
    ],
)
async def test_claims_are_mapped_and_what_cannot_be_read_grants_nothing(
    claims: dict[str, Any], scopes: set[Scope], bases: set[str] | None, issuer: Issuer
) -> None:
    mapped = settings_of(issuer, group_claim="realm_access.roles", scope_map="reader=kb:read,reader=jobs:read,ops=admin")
    who = await OidcVerifier(mapped).principal(issuer.token(**claims))
    assert who.scopes == scopes
    assert who.knowledge_bases == (None if bases is None else frozenset(bases))


@pytest.mark.parametrize("audience", [PUBLIC, f"{PUBLIC}/", f"{PUBLIC}/mcp", ["other", f"{PUBLIC}/mcp"]])
async def test_a_token_is_meant_for_the_public_url_of_rest_or_of_mcp(audience: Any, issuer: Issuer) -> None:
    assert (await OidcVerifier(settings_of(issuer)).principal(issuer.token(aud=audience))).name == "oidc:alice"


async def test_an_audience_that_is_set_replaces_the_public_url(issuer: Issuer) -> None:
    verifier = OidcVerifier(settings_of(issuer, audience="shield-prod"))
    await verifier.principal(issuer.token(aud="shield-prod"))
    with pytest.raises(CredentialInvalid):
        await verifier.principal(issuer.token(aud=PUBLIC))


@pytest.mark.parametrize(
    "make",
    [
        lambda: RSAKey.generate_key(2048, {"kid": "k"}),
        lambda: ECKey.generate_key("P-256", {"kid": "k"}),
        lambda: OKPKey.generate_key("Ed25519", {"kid": "k"}),
    ],
)
async def test_every_kind_of_signature_that_is_allowed_is_checked(make: Callable[[], Any], issuer: Issuer) -> None:
    key = make()
    issuer.signing, issuer.keys = key, [key.as_dict(private=False)]
    assert (await OidcVerifier(settings_of(issuer)).principal(issuer.token())).name == "oidc:alice"


# -- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"}, {"iss": None}, {"iss": 7}, {"aud": "https://other.test"}, {"aud": None}, {"aud": []}, {"aud": [7]},
        {"aud": f"{PUBLIC}.evil.example"}, {"exp": 1}, {"exp": None}, {"exp": "never"}, {"exp": float("nan")}, {"nbf": time.time() + 1000},
        {"iat": time.time() + 1000}, {"sub": None}, {"sub": ""}, {"sub": "a\x00b"}, {"sub": "a" * 251}, {"sub": 7},
    ],
)  # fmt: skip
async def test_a_claim_that_is_wrong_is_refused(claims: dict[str, Any], issuer: Issuer) -> None:
    verifier = OidcVerifier(settings_of(issuer))
    with pytest.raises(CredentialInvalid):
        await verifier.principal(issuer.token(**claims))


async def test_a_token_counts_within_the_skew_and_not_beyond(issuer: Issuer) -> None:
    clock = Clock()
    verifier = OidcVerifier(settings_of(issuer), clock)
    token = issuer.token(iat=None, nbf=2000, exp=2300)
    for moment, good in ((1994, False), (1996, True), (2304, True), (2306, False)):
        clock.now = moment
        if good:
            await verifier.principal(token)
        else:
            with pytest.raises(CredentialInvalid):
                await verifier.principal(token)


async def test_a_signature_that_is_not_the_issuers_is_refused(issuer: Issuer) -> None:
    verifier = OidcVerifier(settings_of(issuer))
    good = issuer.token()
    head, body, signature = good.split(".")
    public_pem = rsa().as_pem(private=False)
    confused = f"{_b64(json.dumps({'alg': 'HS256', 'kid': 'rsa-1'}).encode())}.{body}"
    stranger = RSAKey.generate_key(2048, {"kid": "rsa-1"})
    for token in (
        issuer.token(key=stranger),
        issuer.token(key=stranger, header={"jwk": stranger.as_dict(private=False)}),  # a key that the token brings along
        f"{confused}.{_b64(hmac.digest(public_pem, confused.encode(), 'sha256'))}",  # the public key as a shared secret
        f"eyJhbGciOiJub25lIn0.{body}.",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body}",
        f"{head}.{body}.{signature}.x.y",
        "a.b.c",
        "shk_abcdefgh_" + "a" * 43,
    ):
        with pytest.raises(CredentialInvalid):
            await verifier.principal(token)
    assert (await verifier.principal(good)).name == "oidc:alice"


async def test_what_a_token_insists_on_and_we_do_not_know_is_refused(issuer: Issuer) -> None:
    head = _b64(json.dumps({"alg": "RS256", "kid": "rsa-1", "crit": ["x"], "x": 1}).encode())
    _, body, signature = issuer.token().split(".")
    with pytest.raises(CredentialInvalid):
        await OidcVerifier(settings_of(issuer)).principal(f"{head}.{body}.{signature}")


@pytest.mark.parametrize(
    "published",
    [
        {"use": "enc"},
        {"alg": "PS256"},
        {"kty": "oct", "kid": "rsa-1", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
        {"kty": "RSA", "kid": "rsa-1", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "kid": "rsa-1"},
        {"kid": "rsa-1"},
        "rsa-1",
    ],
)
async def test_a_key_that_is_not_for_this_is_not_used(published: Any, issuer: Issuer) -> None:
    if isinstance(published, dict) and "kty" not in published and "kid" not in published:
        published = {**rsa().as_dict(private=False), **published}
    issuer.keys = [published, ECKey.generate_key("P-256", {"kid": "other"}).as_dict(private=False)]
    with pytest.raises(CredentialInvalid):
        await OidcVerifier(settings_of(issuer)).principal(issuer.token())


async def test_a_token_without_a_key_id_fits_one_of_the_keys(issuer: Issuer) -> None:
    issuer.keys.insert(0, dict(ECKey.generate_key("P-256", {"kid": "other"}).as_dict(private=False)))
    assert (await OidcVerifier(settings_of(issuer)).principal(issuer.token(header={"kid": None}))).name == "oidc:alice"


# -- the issuer's keys ----------------------------------------------------------------------------------------------------


async def test_a_key_that_is_new_is_asked_for_at_once_and_the_old_one_ends(issuer: Issuer) -> None:
    verifier = OidcVerifier(settings_of(issuer))
    old = issuer.token()
    await verifier.principal(old)
    issuer.rotate()
    await verifier.principal(issuer.token())
    with pytest.raises(CredentialInvalid):
        await verifier.principal(old)


async def test_made_up_keys_do_not_make_us_hammer_the_issuer(issuer: Issuer) -> None:
    verifier = OidcVerifier(settings_of(issuer, jwks_pause=60))
    await verifier.principal(issuer.token())
    asked = len(issuer.asked)
    for number in range(50):
        with pytest.raises(CredentialInvalid):
            await verifier.principal(issuer.token(header={"kid": f"made-up-{number}"}))
    assert len(issuer.asked) == asked


async def test_many_first_requests_ask_once(issuer: Issuer) -> None:
    verifier = OidcVerifier(settings_of(issuer))
    await asyncio.gather(*(verifier.principal(issuer.token()) for _ in range(20)))
    assert issuer.asked.count("/keys") == 1


@pytest.mark.parametrize("fault", ["status", "text", "list", "redirect", "huge", "silent"])
async def test_an_issuer_that_does_not_answer_properly_is_a_503_that_names_a_time(fault: str, issuer: Issuer) -> None:
    issuer.fault = fault
    limit = 1.5 if fault == "silent" else 5  # seconds; on a busy machine the request itself may take a while to get there
    verifier = OidcVerifier(settings_of(issuer, jwks_timeout=limit, jwks_pause=60))
    token = issuer.token()
    for _ in range(2):
        with pytest.raises(IdentityUnavailable) as caught:
            await verifier.principal(token)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 1
    assert len(issuer.asked) == 1  # the pause: the second request did not ask


@pytest.mark.parametrize(
    "discovery",
    [{"issuer": "https://evil.example"}, {"jwks_uri": "http://keys.example/keys"}, {"jwks_uri": 7}, {"jwks_uri": "file:///etc/passwd"}],
)
async def test_a_discovery_document_of_another_issuer_or_without_https_is_not_followed(discovery: dict[str, Any], issuer: Issuer) -> None:
    issuer.discovery = discovery
    with pytest.raises(IdentityUnavailable):
        await OidcVerifier(settings_of(issuer)).principal(issuer.token())
    assert "/keys" not in issuer.asked


async def test_an_address_of_keys_that_is_set_needs_no_discovery(issuer: Issuer) -> None:
    await OidcVerifier(settings_of(issuer, jwks_url=f"{issuer.url}/keys")).principal(issuer.token())
    assert issuer.asked == ["/keys"]


async def test_known_keys_go_on_while_the_issuer_is_away_but_not_for_ever(issuer: Issuer) -> None:
    clock = Clock()
    auth = settings_of(issuer, jwks_ttl=60, jwks_keep=600, jwks_pause=10, jwks_timeout=0.5).auth
    keys = Jwks(auth, clock)
    assert await keys.find("rsa-1")
    await issuer.stop()
    clock.now += 500
    assert await keys.find("rsa-1")  # asked in vain, and went on
    clock.now += 101
    with pytest.raises(IdentityUnavailable):
        await keys.find("rsa-1")


async def test_old_keys_are_renewed_and_who_knows_his_key_does_not_wait_for_it(issuer: Issuer) -> None:
    clock = Clock()
    keys = Jwks(settings_of(issuer, jwks_ttl=60, jwks_pause=10, jwks_timeout=5).auth, clock)
    await keys.find("rsa-1")
    asked = len(issuer.asked)
    clock.now += 61
    issuer.fault = "silent"
    waiting = asyncio.create_task(keys.find("rsa-1"))
    async with asyncio.timeout(2):
        while len(issuer.asked) == asked:
            await asyncio.sleep(0.005)
        assert await keys.find("rsa-1")  # another request, while the first one waits
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    issuer.fault = None
    clock.now += 11
    await keys.find("rsa-1")
    assert len(issuer.asked) > asked + 1


async def test_whatever_a_token_grants_fits_between_our_processes(issuer: Issuer) -> None:
    many = [f"base-{number:03}-{'x' * 20}" for number in range(165)]
    token = issuer.token(sub="a" * 250, knowledge_bases=many, scope="kb:read")
    assert 6000 < len(token) <= MAX_FOREIGN
    who = await OidcVerifier(settings_of(issuer)).principal(token)
    hop = HopTokens("a secret of at least thirty-two bytes", timedelta(0))
    assert hop.principal(bearer([f"Bearer {hop.mint(who)}"]) or "") == who
    with pytest.raises(CredentialInvalid):
        await OidcVerifier(settings_of(issuer)).principal(issuer.token(knowledge_bases=many * 2))
