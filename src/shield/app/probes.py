"""What `/readyz` looks at: each dependency by a cheap call of its own, none of them for long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield import __version__
from shield.database import migrate
from shield.errors import ShieldError
from shield.knowledge.vectors.port import VectorIndex
from shield.resilience import Breakers
from shield.service.models import DependencyHealth
from shield.service.parts import Probe
from shield.settings import Settings

_LIMIT = 2.0  # seconds a probe may take


def of(engine: AsyncEngine, index: VectorIndex, settings: Settings, breakers: Breakers) -> Sequence[Probe]:
    """The probes of a process that answers."""
    store = "vectors" if settings.mode == "embedded" else "qdrant"

    async def vectors() -> DependencyHealth:
        try:
            async with asyncio.timeout(_LIMIT):
                await index.ping()
        except (ShieldError, TimeoutError) as error:
            return DependencyHealth(name=store, status="degraded", detail=getattr(error, "code", "timeout"))
        return DependencyHealth(name=store, status="ok", detail="edge" if settings.mode == "embedded" else "qdrant")

    def behind_breaker(name: Literal["llm", "embedding"], provider: str, *, absent: str) -> Probe:
        async def probe() -> DependencyHealth:
            if provider == absent:
                return DependencyHealth(name=name, status="off" if name == "llm" else "ok", detail=provider)
            state = breakers.states().get(name, 0)
            return DependencyHealth(name=name, status="ok" if state == 0 else "degraded", detail=("closed", "half-open", "open")[state])

        return probe

    return (
        *services(engine, settings),
        _schema(engine),
        vectors,
        behind_breaker("embedding", settings.embedding.provider, absent="builtin"),
        behind_breaker("llm", settings.llm.provider, absent="none"),
    )


def services(engine: AsyncEngine, settings: Settings) -> Sequence[Probe]:
    """The probes of PostgreSQL and Redis, which have no breaker that would know."""

    async def postgres() -> DependencyHealth:
        try:
            async with asyncio.timeout(_LIMIT), engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (Exception, TimeoutError):  # noqa: BLE001 - any failure means the same to who asks: it is down
            return DependencyHealth(name="postgres", status="down")
        return DependencyHealth(name="postgres", status="ok")

    async def redis() -> DependencyHealth:
        if settings.mode == "embedded":
            return DependencyHealth(name="redis", status="off", detail="embedded: an in-process queue")
        from shield.jobs.streams import answers

        up = await answers(settings.redis)
        return DependencyHealth(name="redis", status="ok" if up else "degraded", detail="" if up else "workers look into the database")

    return postgres, redis


def _schema(engine: AsyncEngine) -> Probe:
    async def schema() -> DependencyHealth:
        """Whether the schema is one that this program may use: a database may be restored, or upgraded, under a running process."""
        try:
            async with asyncio.timeout(_LIMIT), engine.connect() as connection:
                stands = await migrate.current_of(connection) or ""
                needed = await migrate.min_app_version(connection) if stands else __version__
        except (Exception, TimeoutError):  # noqa: BLE001 - any failure means that it cannot be known
            return DependencyHealth(name="schema", status="down", detail="unknown")
        if stands < migrate.HEAD:
            return DependencyHealth(name="schema", status="down", detail=f"{stands or 'empty'}; this version needs {migrate.HEAD}")
        if migrate.parts_of(__version__) < migrate.parts_of(needed):
            return DependencyHealth(name="schema", status="down", detail=f"{stands}; it needs Shield {needed} or later")
        return DependencyHealth(name="schema", status="ok", detail=stands)

    return schema
