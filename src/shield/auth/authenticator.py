"""From a request to a principal, in every mode, and what a server answers to who has no credential.

A token between our own processes (`hop.py`) is accepted in every mode as soon as a secret is set. Beside it, `none` takes
everybody for the local user and looks at nothing else; `api-key` takes keys; `oidc` takes the identity provider's tokens. There is no
mixture and no fallback: a credential that is not valid is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import HTTPConnection

from shield.auth.bearer import bearer, token_type
from shield.auth.hop import TYPE, HopTokens
from shield.auth.keys import KeyVerifier
from shield.auth.oidc import OidcVerifier
from shield.auth.principal import LOCAL, Principal, Scope
from shield.errors import ConfigInvalid, CredentialInvalid, ShieldError, Unauthenticated
from shield.settings import Settings

METADATA_PATH = "/.well-known/oauth-protected-resource"
"""RFC 9728; the MCP endpoint's own is below it."""
PRINCIPAL = "shield.principal"
"""Key of the ASGI scope under which a server leaves who a request acts for."""


def caller_of(scope: MutableMapping[str, Any]) -> Principal:
    """Who a request acts for.

    Raises:
        Unauthenticated: nobody has asked; a route that is public must not want to know.
    """
    principal = scope.get(PRINCIPAL)
    if not isinstance(principal, Principal):
        raise Unauthenticated
    return principal


class Authenticator:
    """Tells who a request acts for; build it with `of`."""

    def __init__(self, verifier: KeyVerifier | OidcVerifier | None, hop: HopTokens | None) -> None:
        """`verifier=None`: nobody needs a credential."""
        self._verifier = verifier
        self._hop = hop

    @classmethod
    def of(cls, settings: Settings, keys: KeyVerifier | None = None, hop: HopTokens | None = None) -> Authenticator:
        """The one of these settings; `keys` is needed in mode `api-key`, `hop` replaces the secret of the settings.

        Raises:
            ConfigInvalid: a setting is missing or cannot be read.
        """
        hop = hop or HopTokens.of(settings)
        if settings.auth.mode == "none":
            return cls(None, hop)
        if settings.auth.mode == "oidc":
            return cls(OidcVerifier(settings), hop)
        if keys is None:
            raise ConfigInvalid("SHIELD_AUTH_MODE=api-key needs SHIELD_AUTH_HOP_SECRET here, to ask the orchestrator about keys.")
        return cls(keys, hop)

    async def __call__(self, request: HTTPConnection) -> Principal:
        """Who the request acts for.

        Raises:
            Unauthenticated: it shows no credential.
            CredentialInvalid: the credential it shows is not valid.
            IdentityUnavailable, DatabaseUnavailable: that cannot be told at the moment.
        """
        values = request.headers.getlist("authorization")
        if self._verifier is None and not self._is_hop(values):
            return LOCAL
        token = bearer(values)
        if token is None:
            raise Unauthenticated
        if self._hop is not None and token_type(token) == TYPE:
            return self._hop.principal(token)
        if self._verifier is None:
            raise CredentialInvalid
        return await self._verifier.principal(token)

    def _is_hop(self, values: list[str]) -> bool:
        """Whether a request to a server that asks nobody who he is speaks for someone all the same."""
        return self._hop is not None and any(token_type(value.strip().rpartition(" ")[2]) == TYPE for value in values)


@dataclass(frozen=True)
class Challenge:
    """The `WWW-Authenticate` header of a refusal (RFC 6750); with OIDC it leads to the metadata (RFC 9728)."""

    public_url: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Challenge:
        """The one of these settings."""
        return cls(settings.public_url.rstrip("/") if settings.auth.mode == "oidc" and settings.public_url else None)

    def headers(self, error: ShieldError, path: str) -> dict[str, str]:
        """The headers that a refusal of a request for `path` carries."""
        if error.status != 401:
            return {}
        parts = ['realm="shield"', f'scope="{" ".join(scope for scope in Scope if scope is not Scope.ADMIN)}"']
        if isinstance(error, CredentialInvalid):
            parts.append('error="invalid_token"')
        if self.public_url is not None:
            suffix = "/mcp" if path.rstrip("/") == "/mcp" else ""
            parts.append(f'resource_metadata="{self.public_url}{METADATA_PATH}{suffix}"')
        return {"WWW-Authenticate": f"Bearer {', '.join(parts)}"}


def resource_metadata(settings: Settings, resource: str) -> dict[str, object]:
    """What RFC 9728 wants to know about a resource of this server; `resource` is its path, empty for all of it."""
    return {
        "resource": f"{(settings.public_url or '').rstrip('/')}{resource}",
        "authorization_servers": [settings.auth.issuer],
        "scopes_supported": [str(scope) for scope in Scope],
        "bearer_methods_supported": ["header"],
        "resource_name": "HX-Citadel Shield",
    }
