"""An identity provider of our own: discovery, key set and signing, with every way of being wrong.

    async with Issuer() as issuer:
        issuer.url                       # http://127.0.0.1:PORT
        issuer.token(sub="alice", scope="kb:read")
        issuer.rotate()                  # a new signing key; the old one leaves the set
        issuer.fault = "status"          # what the next requests meet
        issuer.asked                     # paths, in order

`token` makes a valid access token; its keywords replace claims (None removes one), `header` and `key` replace the rest.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey


@cache
def rsa() -> RSAKey:
    """The first signing key, made once: that takes a tenth of a second."""
    return RSAKey.generate_key(2048, {"kid": "rsa-1"})


@dataclass
class Issuer:
    """A running provider; see the module."""

    audience: str = "https://shield.test"
    signing: Key = field(default_factory=rsa)
    keys: list[dict[str, Any]] = field(default_factory=lambda: [dict(rsa().as_dict(private=False))])
    """The published set."""
    discovery: dict[str, Any] = field(default_factory=dict)
    """Replaces fields of the discovery document."""
    fault: str | None = None
    """`status`, `text`, `list`, `redirect`, `huge`, `silent`: what every request meets."""
    asked: list[str] = field(default_factory=list)
    url: str = ""
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Go away; the address stays known."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def rotate(self, kid: str = "ec-2") -> None:
        """Sign with a new key, which alone is published."""
        self.signing = ECKey.generate_key("P-256", {"kid": kid})
        self.keys = [dict(self.signing.as_dict(private=False))]

    def token(
        self, *, header: dict[str, Any] | None = None, key: Key | None = None, algorithms: list[str] | None = None, **claims: Any
    ) -> str:
        """A signed token."""
        signing = key or self.signing
        algorithm = {"RSA": "RS256", "EC": "ES256", "oct": "HS256"}.get(signing.key_type, "Ed25519")
        head = {"alg": algorithm, "kid": signing.get("kid"), "typ": "at+jwt", **(header or {})}
        now = int(time.time())
        body = {"iss": self.url, "aud": self.audience, "sub": "alice", "iat": now, "nbf": now, "exp": now + 300, **claims}
        return jwt.encode(
            {name: value for name, value in head.items() if value is not None},
            {name: value for name, value in body.items() if value is not None},
            signing,
            algorithms=algorithms or [str(head["alg"])],
        )

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        match self.fault:
            case "status":
                return web.Response(status=500)
            case "text":
                return web.Response(text="hello")
            case "list":
                return web.json_response([1])
            case "redirect":
                raise web.HTTPFound("/elsewhere")
            case "huge":
                return web.Response(body=b" " * 600_000 + b"{}")
            case "silent":
                await asyncio.sleep(60)
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.discovery})
        if request.path == "/keys":
            return web.Response(text=json.dumps({"keys": self.keys}), content_type="application/jwk-set+json")
        return web.Response(status=404)
