"""An issuer's public keys: fetched when needed, remembered, and asked for again at a bounded rate.

A token names its key. If that key is unknown the set is fetched once more, but never more often than `auth.jwks_pause`, so
that made-up names cannot make us hammer the issuer. The same pause follows a failure. While the issuer is away, known keys go
on for `auth.jwks_keep`. One request at a time fetches; one that knows its key does not wait for it.

Only signature keys of known public types are taken; a shared secret or a weak RSA key in the set is ignored. The addresses come
from the settings, or from the discovery document of the issuer they name, and must be https unless they lead to this machine.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key

from shield.auth.local import is_loopback
from shield.errors import ConfigInvalid, IdentityUnavailable
from shield.settings import AuthSettings, KiB

log = structlog.get_logger(__name__)

PublicKey = RSAKey | ECKey | OKPKey
_MAX_BYTES = 512 * KiB
_MAX_KEYS = 100
_MIN_RSA = 2048


class _FetchFailed(Exception):
    """The issuer did not answer, or not with what was asked for; the message goes to the log."""


@dataclass
class Jwks:
    """The keys of one issuer.

    Args:
        settings: issuer, addresses and durations.
        clock: monotonic seconds.
    """

    settings: AuthSettings
    clock: Callable[[], float] = time.monotonic
    _keys: tuple[PublicKey, ...] = ()
    _fetched: float | None = None
    _tried: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def find(self, kid: str | None) -> Sequence[PublicKey]:
        """The keys of that id, or all if a token names none; empty if the issuer has no such key.

        Raises:
            IdentityUnavailable: the issuer does not answer, and no keys, or only very old ones, are known.
        """
        found = self._known(kid)
        if not found or (self._age() > self.settings.jwks_ttl.total_seconds() and not self._lock.locked()):
            await self._refresh(kid)
            found = self._known(kid)
        if self._age() > self.settings.jwks_keep.total_seconds():
            raise IdentityUnavailable(retry_after=max(1.0, self._pause()))
        return found

    def _known(self, kid: str | None) -> tuple[PublicKey, ...]:
        return tuple(key for key in self._keys if kid is None or key.get("kid") == kid)

    def _age(self) -> float:
        return float("inf") if self._fetched is None else self.clock() - self._fetched

    def _pause(self) -> float:
        """Seconds until the issuer may be asked again."""
        return 0.0 if self._tried is None else max(0.0, self._tried + self.settings.jwks_pause.total_seconds() - self.clock())

    async def _refresh(self, kid: str | None) -> None:
        async with self._lock:
            stale = self._age() > self.settings.jwks_ttl.total_seconds()
            if self._pause() > 0 or (self._known(kid) and not stale):  # someone else has just asked
                return
            self._tried = self.clock()
            try:
                async with asyncio.timeout(self.settings.jwks_timeout.total_seconds()):
                    self._keys = await self._fetch()
            except (_FetchFailed, httpx.HTTPError, TimeoutError) as error:
                log.warning("oidc.keys_unavailable", reason=str(error) or type(error).__name__, known=len(self._keys))
                return
            self._fetched = self.clock()

    async def _fetch(self) -> tuple[PublicKey, ...]:
        async with httpx.AsyncClient(timeout=self.settings.jwks_timeout.total_seconds()) as client:
            document = await _json(client, await self._address(client))
        listed = document.get("keys")
        if not isinstance(listed, list):
            raise _FetchFailed("the issuer's key set has no keys")
        keys = tuple(key for item in listed[:_MAX_KEYS] if (key := _usable(item)) is not None)
        if not keys:
            raise _FetchFailed("the issuer's key set has no key that can be used")
        return keys

    async def _address(self, client: httpx.AsyncClient) -> str:
        if self.settings.jwks_url:
            return self.settings.jwks_url
        issuer = str(self.settings.issuer)
        document = await _json(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        address = document.get("jwks_uri")
        if document.get("issuer") != issuer or not isinstance(address, str) or not is_trustworthy(address):
            raise _FetchFailed("the discovery document is another issuer's, or names no https address for its keys")
        return address


def is_trustworthy(address: str) -> bool:
    """Whether what comes from this address cannot be changed on the way: https, or this machine."""
    try:
        url = urlsplit(address)
        host = url.hostname
    except ValueError:
        return False
    return bool(host) and url.username is None and (url.scheme == "https" or (url.scheme == "http" and is_loopback(host or "")))


def check_oidc(settings: AuthSettings) -> None:
    """Pass if these settings name an issuer that can be trusted.

    Raises:
        ConfigInvalid: they do not; the message names the setting.
    """
    if not settings.issuer:
        raise ConfigInvalid("SHIELD_AUTH_MODE=oidc needs SHIELD_AUTH_ISSUER.")
    for variable, address in (("SHIELD_AUTH_ISSUER", settings.issuer), ("SHIELD_AUTH_JWKS_URL", settings.jwks_url)):
        if address and not is_trustworthy(address):
            raise ConfigInvalid(f"{variable} must be an https address without credentials (http only on this machine).")


async def _json(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    """A JSON object from an address; redirects are not followed."""
    body = bytearray()
    try:
        async with client.stream("GET", address, headers={"Accept": "application/json"}) as response:
            if response.status_code != 200:
                raise _FetchFailed(f"the issuer answered {response.status_code}")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise _FetchFailed("the issuer's answer is too large")
        document = json.loads(bytes(body))
    except (httpx.InvalidURL, ValueError, RecursionError) as error:
        raise _FetchFailed("the issuer's answer is not JSON") from error
    if not isinstance(document, dict):
        raise _FetchFailed("the issuer's answer is not a JSON object")
    return document


def _usable(item: object) -> PublicKey | None:
    if not isinstance(item, dict) or item.get("kty") not in {"RSA", "EC", "OKP"} or item.get("use", "sig") != "sig":
        return None
    try:
        key = import_key(item)
        if isinstance(key, RSAKey):
            return key if key.raw_value.key_size >= _MIN_RSA else None
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):  # whatever a library makes of a broken key: it is left out
        return None
    return key if isinstance(key, ECKey | OKPKey) else None
