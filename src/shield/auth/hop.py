"""The token between our own processes: a JWT that says for whom one of them calls the orchestrator.

Signed with a secret that only the processes of an installation share (`SHIELD_AUTH_HOP_SECRET`), it lives 60 seconds and holds
the principal's name, scopes and knowledge bases. Whoever holds the secret can act for everybody; so it must be long, it is
never sent, and a caller's own credential never travels further. A token is accepted only with our algorithm, type, issuers
and audience, and only if its whole life is short: one without an end, or with a far one, is as bad as a forged one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from shield.auth.bearer import is_name, token_type
from shield.auth.principal import Principal, Scope
from shield.errors import ConfigInvalid, CredentialInvalid
from shield.settings import Settings

TYPE = "shield-hop+jwt"
"""The `typ` header, by which such a token is told from an identity provider's."""
LIFE = 60
"""Seconds a token lives."""
MIN_SECRET = 32
"""Least bytes of the secret."""
_ALGORITHM = "HS256"


class Service(StrEnum):
    """Who issues tokens: the processes that call an orchestrator for others."""

    MCP = "shield:mcp"
    LOCAL = "shield:local"
    """A command on the machine, and of the user, that owns the data directory."""
    OPERATOR = "shield:operator"


class Audience(StrEnum):
    """What a token is good for."""

    ORCHESTRATOR = "shield:orchestrator"
    INTROSPECTION = "shield:introspection"
    """Asking the orchestrator whom a key belongs to, and nothing else."""


class HopTokens:
    """Makes and checks the tokens of one installation.

    Args:
        secret: at least 32 bytes.
        skew: how far the other machine's clock may be off.
        clock: seconds since the epoch.

    Raises:
        ConfigInvalid: the secret is too short.
    """

    def __init__(self, secret: str, skew: timedelta, clock: Callable[[], float] = time.time) -> None:
        if len(secret.encode()) < MIN_SECRET:
            raise ConfigInvalid(f"SHIELD_AUTH_HOP_SECRET is shorter than {MIN_SECRET} bytes. Make one with: openssl rand -base64 48")
        try:
            self._key = OctKey.import_key(secret.encode())
        except ValueError as error:  # a public key or certificate, which is no secret
            raise ConfigInvalid("SHIELD_AUTH_HOP_SECRET is not a secret. Make one with: openssl rand -base64 48") from error
        self._skew = int(skew.total_seconds())
        self._clock = clock

    @classmethod
    def of(cls, settings: Settings) -> HopTokens | None:
        """Those of these settings; None if they name no secret.

        Raises:
            ConfigInvalid: the secret is too short.
        """
        secret = settings.auth.hop_secret
        return cls(secret.get_secret_value(), settings.auth.clock_skew) if secret is not None else None

    def mint(self, who: Principal, service: Service = Service.MCP) -> str:
        """A token with which `service` calls the orchestrator for `who`."""
        bases = None if who.knowledge_bases is None else sorted(who.knowledge_bases)
        return self._sign(service, Audience.ORCHESTRATOR, who.name, {"scope": " ".join(sorted(who.scopes)), "kbs": bases})

    def mint_introspection(self, service: Service = Service.MCP) -> str:
        """A token with which `service` asks the orchestrator about keys, for itself."""
        return self._sign(service, Audience.INTROSPECTION, service, {})

    def principal(self, token: str) -> Principal:
        """Who the call is for.

        Raises:
            CredentialInvalid: the token is not one of ours, is too old, or lives too long.
        """
        claims = self._claims(token, Audience.ORCHESTRATOR)
        bases, scope = claims.get("kbs"), claims.get("scope")
        if not isinstance(scope, str) or not (bases is None or (isinstance(bases, list) and all(isinstance(item, str) for item in bases))):
            raise CredentialInvalid
        try:
            scopes = frozenset(Scope(item) for item in scope.split())
        except ValueError as error:
            raise CredentialInvalid from error
        return Principal(str(claims["sub"]), scopes, None if bases is None else frozenset(bases))

    def check_introspection(self, token: str) -> None:
        """Pass if one of our processes asks about keys.

        Raises:
            CredentialInvalid: it does not.
        """
        self._claims(token, Audience.INTROSPECTION)

    def _sign(self, service: Service, audience: Audience, subject: str, more: dict[str, object]) -> str:
        now = int(self._clock())
        claims = {"iss": service, "aud": audience, "sub": subject, "iat": now, "exp": now + LIFE, "jti": secrets.token_urlsafe(16), **more}
        return jwt.encode({"alg": _ALGORITHM, "typ": TYPE}, claims, self._key, algorithms=[_ALGORITHM])

    def _claims(self, token: str, audience: Audience) -> dict[str, object]:
        if token_type(token) != TYPE:
            raise CredentialInvalid
        wanted = jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=self._skew,
            iss={"essential": True, "values": [str(service) for service in Service]},
            aud={"essential": True, "value": str(audience)},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            jti={"essential": True},
        )
        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
            wanted.validate(claims)
        except (JoseError, ValueError) as error:
            raise CredentialInvalid from error
        if isinstance(claims["aud"], list) or claims["exp"] - claims["iat"] > LIFE or not is_name(claims["sub"]):
            raise CredentialInvalid
        return dict(claims)
