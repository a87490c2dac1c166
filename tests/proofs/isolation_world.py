"""The fleet that the isolation proof questions: an orchestrator and an MCP server on real sockets, and everyone who calls them.

`owner` has a knowledge base (`vault`), a document, a job, uploads. `reader` may read the vault and nothing more; `other` may do everything an
ordinary principal can, in a base of its own; `admin` is the control that administrators' routes work. Everybody else shows something that
must not count: nothing, keys that ended, tokens of others, forged tokens between our processes.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal
from uuid import uuid4

import httpx
import sqlalchemy as sa
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from shield.api.app import create_app
from shield.api.dependencies import Introspection
from shield.app.assembly import Wake, answering, connect_core
from shield.auth import LOCAL
from shield.auth.authenticator import Authenticator
from shield.auth.hop import TYPE, Audience, HopTokens, Service
from shield.database.tables import api_keys
from shield.mcp import caller, create_mcp, http_app
from shield.service.introspection import Introspection as RemoteKeys
from shield.service.keys import ApiKeys
from shield.service.local import LocalShield
from shield.service.models import KeyCreate
from shield.service.remote import RemoteShield
from shield.settings import Settings, load
from shield.telemetry.metrics import Metrics
from tests.integration.api.conftest import serving
from tests.peers.oidc import Issuer

Mode = Literal["api-key", "oidc"]
SECRET = "the secret that the processes of the fleet share"
PUBLIC = "http://shield.test"
VAULT, ELSEWHERE = "vault", "elsewhere"
MARK = "zanzibarite"
"""A word that stands in the owner's document, and nowhere else."""
RIGHTS: dict[str, tuple[list[str], list[str] | None]] = {
    "admin": (["admin"], None),
    "owner": (["kb:read", "kb:write", "crawl", "jobs:read"], [VAULT]),
    "other": (["kb:read", "kb:write", "crawl", "jobs:read"], [ELSEWHERE]),
    "reader": (["kb:read", "jobs:read"], [VAULT]),
}


@dataclass(frozen=True)
class Target:
    """What a request is aimed at."""

    kb: str
    document: str
    job: str
    upload: str
    announced: str
    key: str

    @classmethod
    def phantom(cls, kb: str = "no-such-base") -> Target:
        """Things of the same form that do not exist."""
        document, job, upload, announced = (str(uuid4()) for _ in range(4))
        return cls(kb, document, job, upload, announced, "zzzzzzzz")

    def in_base(self, kb: str) -> Target:
        """The same things, looked for in another base."""
        return replace(self, kb=kb)

    def values(self) -> tuple[str, ...]:
        """All of it, longest first."""
        return tuple(sorted((self.kb, self.document, self.job, self.upload, self.announced, self.key), key=len, reverse=True))


@dataclass
class World:
    """A running fleet with its callers."""

    api: httpx.AsyncClient
    mcp: httpx.AsyncClient
    app: FastAPI
    mcp_app: FastAPI
    tools: frozenset[str]
    credentials: dict[str, str | None]
    """What each of the principals in `RIGHTS` shows."""
    bad: dict[str, str | None]
    """What must not count."""
    target: Target
    """What the owner has."""


@asynccontextmanager
async def world(settings: Settings, dsn: str, mode: Mode) -> AsyncIterator[World]:
    """The fleet on a migrated database."""
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(Issuer(audience=PUBLIC))
        auth = {"mode": mode, "hop_secret": SECRET, "issuer": issuer.url, "audience": PUBLIC}
        settings = settings.model_copy(update={"auth": load(auth=auth).auth, "public_url": PUBLIC})
        hop = HopTokens(SECRET, timedelta(seconds=5))
        core = await connect_core(settings, dsn, stack, migrate=True)
        shield = LocalShield((await answering(core, stack, Wake())).parts)
        app = create_app(
            shield, settings, principal_of=Authenticator.of(settings, shield.api_keys), introspection=Introspection(shield.api_keys, hop)
        )
        api_url = await stack.enter_async_context(serving(app))
        remote = await stack.enter_async_context(RemoteShield(api_url, credentials=hop.mint, delegated=True))
        keys = await stack.enter_async_context(RemoteKeys(api_url, hop, settings))
        mcp = create_mcp(remote, Metrics(), settings, principal=caller)
        mcp_app = create_app(remote, settings, mcp_app=http_app(mcp), principal_of=Authenticator.of(settings, keys), rest=False)
        mcp_url = await stack.enter_async_context(serving(mcp_app))
        api = await stack.enter_async_context(httpx.AsyncClient(base_url=api_url, trust_env=False, timeout=30))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=mcp_url, trust_env=False, timeout=30))
        found = World(api, client, app, mcp_app, frozenset(tool.name for tool in await mcp.list_tools()), {}, {}, Target.phantom())
        await _introduce(found, shield.api_keys, core.engine, issuer, mode)
        found.target = await _furnish(found)
        yield found


async def _introduce(world: World, keys: ApiKeys, engine: Any, issuer: Issuer, mode: Mode) -> None:
    """Give everybody what he shows."""

    async def key(name: str) -> str:
        scopes, bases = RIGHTS[name]
        request = KeyCreate.model_validate({"name": name, "principal": name, "scopes": scopes, "knowledge_bases": bases})
        return (await keys.create_key(LOCAL, request)).key

    owners = {name: await key("owner") for name in ("valid", "expired", "revoked")}
    by_id = {name: api_keys.c.id == secret[4:12] for name, secret in owners.items()}
    async with engine.begin() as connection:
        await connection.execute(sa.update(api_keys).where(by_id["expired"]).values(expires_at=sa.func.now()))
        await connection.execute(sa.update(api_keys).where(by_id["revoked"]).values(revoked_at=sa.func.now()))
    if mode == "api-key":
        world.credentials |= {name: await key(name) for name in RIGHTS}
    else:
        world.credentials |= {
            name: issuer.token(sub=name, scope=" ".join(scopes), knowledge_bases=bases) for name, (scopes, bases) in RIGHTS.items()
        }
    rights: dict[str, Any] = {"sub": "owner", "scope": "admin"}
    forged = HopTokens("another secret of the same length, more or less", timedelta(0)).mint(LOCAL)
    world.bad = {
        "nobody": None,
        "expired key": owners["expired"],
        "revoked key": owners["revoked"],
        "wrong key": owners["valid"][:-2] + ("aa" if not owners["valid"].endswith("aa") else "bb"),
        "token for another server": issuer.token(aud="https://other.test", **rights),
        "expired token": issuer.token(exp=int(time.time()) - 3600, **rights),
        "token of a stranger": issuer.token(key=RSAKey.generate_key(2048, {"kid": "rsa-1"}), **rights),
        "unsigned token": ".".join((_segment({"alg": "none"}), issuer.token(**rights).split(".")[1], "")),
        "forged hop token": forged,
        "hop token that lives long": _hop(exp=int(time.time()) + 3600),
        "hop token that only asks": HopTokens(SECRET, timedelta(0)).mint_introspection(),
        "hop token of another issuer": _hop(iss="someone"),
        "credential of the other mode": issuer.token(**rights) if mode == "api-key" else owners["valid"],
    }


def _hop(**changes: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": Service.MCP,
        "aud": Audience.ORCHESTRATOR,
        "sub": "owner",
        "iat": now,
        "exp": now + 60,
        "jti": "1",
        "scope": "admin",
        "kbs": None,
    }
    return jwt.encode({"alg": "HS256", "typ": TYPE}, {**claims, **changes}, OctKey.import_key(SECRET.encode()))


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


async def _furnish(world: World) -> Target:
    """What the owner has, made through the API itself."""

    async def post(who: str, path: str, **options: Any) -> dict[str, Any]:
        response = await world.api.post(path, headers={"Authorization": f"Bearer {world.credentials[who]}"}, **options)
        assert response.is_success, (who, path, response.text)
        return dict(response.json())

    for name, description in ((VAULT, f"All about {MARK}."), (ELSEWHERE, "")):
        await post("admin", "/knowledge-bases", json={"name": name, "description": description, "graph": False})
    note = await post(
        "owner", "/notes", json={"text": f"The {MARK} lies under the third stone.", "source": f"note:{MARK}", "knowledge_base": VAULT}
    )
    spec = {"type": "document", "text": f"More about {MARK}.", "source": f"job:{MARK}"}
    job = await post("owner", "/lightrag/ingest-async", json={"knowledge_base": VAULT, "spec": spec})
    upload = await post("owner", "/uploads", files={"file": (f"{MARK}.txt", f"{MARK} in a file".encode())})
    announced = await post("owner", "/uploads/announce", json={"filename": f"{MARK}.pdf"})
    key = await post("admin", "/keys", json={"name": f"key of {MARK}", "principal": "owner"})
    return Target(VAULT, note["document_id"], job["job_id"], upload["upload_id"], announced["upload_id"], key["id"])
