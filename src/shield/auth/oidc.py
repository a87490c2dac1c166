"""Access tokens of an identity provider: JWTs, checked here, without a call per request.

A token counts if one of the issuer's keys signed it with an asymmetric algorithm, it names this issuer and this server
(audience), and its time has come and not passed. Whatever else is wrong is one error for the caller; the log has the reason.
The principal is `oidc:{sub}`. Its scopes are those of `auth.scope_claims` that are ours, and what `auth.scope_map` makes of its
scopes and groups; its knowledge bases come from a claim, or from `auth.kb_default` where a token has none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from joserfc import jws, jwt
from joserfc.errors import JoseError

from shield.auth.bearer import MAX_FOREIGN, header_of, is_name
from shield.auth.jwks import Jwks, check_oidc
from shield.auth.principal import Principal, Scope
from shield.errors import ConfigInvalid, CredentialInvalid
from shield.settings import Settings

log = structlog.get_logger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""What a token may be signed with: never `none`, never a shared secret."""
_MAX_NAME = 250  # of `sub`: with its prefix it still is a principal's name
_MAX_TRIED = 8  # keys tried for a token that names none
_MAX_HEADER = 4096
EVERYTHING = "*"
_BASE = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)


class OidcVerifier:
    """Checks the tokens of one issuer.

    Args:
        settings: issuer, audience, claims; the public URL is the default audience.
        clock: seconds since the epoch.

    Raises:
        ConfigInvalid: a setting is missing or cannot be read.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        check_oidc(settings.auth)
        self._settings = settings.auth
        self._audiences = list(audiences(settings))
        self._map = scope_map(settings.auth.scope_map)
        self._jwks = Jwks(settings.auth)
        self._clock = clock
        self._registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)  # providers add headers; `crit` is checked
        self._registry.max_header_length = _MAX_HEADER

    async def principal(self, token: str) -> Principal:
        """Who the holder of this token is.

        Raises:
            CredentialInvalid: it is not a valid token for this server.
            IdentityUnavailable: the issuer's keys are not to be had.
        """
        claims = await self._verified(token)
        try:
            self._validate(claims)
        except JoseError as error:
            raise _refused(f"{error.error}: {error.description}") from error
        if not is_name(claims["sub"]) or len(claims["sub"]) > _MAX_NAME:
            raise _refused("sub cannot name a principal")
        scopes = self._scopes(claims)
        bases = None if Scope.ADMIN in scopes else self._knowledge_bases(claims)
        return Principal(f"oidc:{claims['sub']}", scopes, bases)

    async def _verified(self, token: str) -> dict[str, Any]:
        header = header_of(token)
        kid = header.get("kid")
        if (
            len(token) > MAX_FOREIGN
            or token.count(".") != 2
            or header.get("alg") not in ALGORITHMS
            or not (kid is None or isinstance(kid, str))
        ):
            raise _refused("no JWT of at most 8 KiB with an algorithm that is allowed")
        keys = await self._jwks.find(kid)
        for key in keys[:_MAX_TRIED]:
            try:
                return dict(jwt.decode(token, key, registry=self._registry).claims)
            except (JoseError, ValueError, RecursionError):
                continue
        raise _refused("no key of the issuer fits" if keys else "unknown key")

    def _validate(self, claims: dict[str, Any]) -> None:
        jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=int(self._settings.clock_skew.total_seconds()),
            iss={"essential": True, "value": str(self._settings.issuer)},
            aud={"essential": True, "values": self._audiences},
            exp={"essential": True},
            sub={"essential": True},
        ).validate(claims)

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        own = [item for name in self._settings.scope_claims for item in words(claim(claims, name))]
        groups = words(claim(claims, self._settings.group_claim)) if self._settings.group_claim else []
        named = {Scope(item) for item in own if item in set(Scope)}
        return frozenset(named | {scope for item in (*own, *groups) for scope in self._map.get(item, ())})

    def _knowledge_bases(self, claims: Mapping[str, Any]) -> frozenset[str] | None:
        value = claim(claims, self._settings.kb_claim)
        granted = self._settings.kb_default if value is None else words(value)
        return None if EVERYTHING in granted else frozenset(name for name in granted if _BASE.fullmatch(name))


def audiences(settings: Settings) -> tuple[str, ...]:
    """What a token may be meant for: as set, or the public URL of REST and of MCP.

    Raises:
        ConfigInvalid: neither is set.
    """
    if settings.auth.audience:
        return settings.auth.audience
    if not settings.public_url:
        raise ConfigInvalid("SHIELD_AUTH_MODE=oidc needs SHIELD_PUBLIC_URL, which is what tokens are meant for.")
    url = settings.public_url.rstrip("/")
    return url, f"{url}/", f"{url}/mcp"


def scope_map(items: Sequence[str]) -> dict[str, tuple[Scope, ...]]:
    """`theirs=ours` items by their name.

    Raises:
        ConfigInvalid: an item has another form, or names no scope of ours.
    """
    found: dict[str, tuple[Scope, ...]] = {}
    for item in items:
        theirs, _, ours = item.rpartition("=")
        if not theirs or ours not in set(Scope):
            raise ConfigInvalid(f"SHIELD_AUTH_SCOPE_MAP: `{item}` is not theirs=ours with ours one of {', '.join(Scope)}.")
        found[theirs] = (*found.get(theirs, ()), Scope(ours))
    return found


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or else by its path (`realm_access.roles`); None if there is none."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def words(value: object) -> list[str]:
    """A claim that is a list of strings, or one string of words; anything else grants nothing."""
    if isinstance(value, str):
        return value.split()
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _refused(reason: str) -> CredentialInvalid:
    log.info("oidc.token_refused", reason=reason)
    return CredentialInvalid()
