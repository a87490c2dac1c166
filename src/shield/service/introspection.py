"""Keys checked by asking an orchestrator: how an MCP server of a fleet knows them without access to the database.

It asks with a token of its own that is good for this question only. What is learnt about a valid key is remembered for at most 30
seconds (so a revoked key may go on that long here), under the key's hash; a key that is not valid is asked about each time, unless it
has not even the form of one. An orchestrator that does not answer is left alone by the same circuit breaker that tool calls meet.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx
import structlog
from pydantic import ValidationError

from shield.auth import Principal, Scope
from shield.auth import keys as form
from shield.auth.hop import HopTokens
from shield.auth.local import is_loopback
from shield.errors import CircuitOpen, CredentialInvalid, IdentityUnavailable, Overloaded
from shield.resilience import Breakers
from shield.service.guarded import SERVICE
from shield.service.models.base import Model
from shield.settings import Settings

log = structlog.get_logger(__name__)

_REMEMBERED = 4096
_RETRY = 2.0  # seconds after which to try again when the orchestrator does not answer


class _Found(Model):
    active: bool
    principal: str = ""
    scopes: frozenset[Scope] = frozenset()
    knowledge_bases: frozenset[str] | None = None


class Introspection:
    """A `shield.auth.keys.KeyVerifier`; use it as an async context manager, or call `aclose`.

    Args:
        base_url: address of the orchestrator.
        hop: makes the token to ask with.
        settings: how long to wait and to remember.
        client: an httpx client to use and leave open; by default one of its own.
        breakers: of this process; by default every question goes out.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        base_url: str,
        hop: HopTokens,
        settings: Settings,
        client: httpx.AsyncClient | None = None,
        *,
        breakers: Breakers | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._breakers = breakers
        self._url = f"{base_url.rstrip('/')}/auth/introspect"
        self._hop = hop
        self._ttl = settings.auth.introspection_ttl.total_seconds()
        self._timeout = httpx.Timeout(settings.client.connect.total_seconds())
        self._owned = client is None
        self._client = client or httpx.AsyncClient(trust_env=not is_loopback(httpx.URL(base_url).host))
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless the client was handed in."""
        if self._owned:
            await self._client.aclose()

    async def principal(self, key: str) -> Principal:
        """Whom a key belongs to; see `KeyVerifier`."""
        if form.key_id(key) is None:
            raise CredentialInvalid
        digest = form.digest(key)
        until, who = self._known.get(digest, (0.0, None))
        if who is not None and self._clock() < until:
            return who
        self._known.pop(digest, None)
        asked = self._clock()  # what is learnt is as old as the question
        found = await self._ask(key)
        if not found.active:
            raise CredentialInvalid
        who = Principal(found.principal, found.scopes, found.knowledge_bases)
        self._known[digest] = (asked + self._ttl, who)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return who

    async def _ask(self, key: str) -> _Found:
        try:
            response = await (self._breakers.call(SERVICE, lambda: self._post(key)) if self._breakers else self._post(key))
            return _Found.model_validate_json(response.content, extra="ignore")
        except ValidationError as error:
            log.warning("keys.cannot_ask", reason="no answer of an orchestrator")
            raise IdentityUnavailable(retry_after=_RETRY) from error
        except (CircuitOpen, Overloaded) as error:
            raise IdentityUnavailable(retry_after=error.retry_after or _RETRY) from error

    async def _post(self, key: str) -> httpx.Response:
        headers: dict[str, Any] = {"Authorization": f"Bearer {self._hop.mint_introspection()}", "Content-Type": "text/plain"}
        try:
            response = await self._client.post(self._url, content=key.encode(), headers=headers, timeout=self._timeout)
        except httpx.HTTPError as error:
            log.warning("keys.cannot_ask", reason=type(error).__name__)
            raise IdentityUnavailable(retry_after=_RETRY) from error
        if response.status_code == 200:
            return response
        log.warning("keys.cannot_ask", reason=str(response.status_code))
        if response.status_code in (429, 503):  # it is there, and busy: no reason to leave it alone altogether
            raise Overloaded(retry_after=_RETRY)
        raise IdentityUnavailable(retry_after=_RETRY)
