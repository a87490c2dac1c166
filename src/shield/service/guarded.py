"""The port behind the circuit breaker `orchestrator`: what the MCP server of a fleet calls.

An orchestrator that keeps failing is left alone for a while, so that a tool call fails in microseconds with `retry_after` instead of
waiting for a time-out each. Health is never guarded: it is how one learns that the orchestrator is back.
"""

from __future__ import annotations

import asyncio
from typing import Any

from shield import __version__
from shield.errors import ShieldError
from shield.resilience import Breakers
from shield.service.models import DependencyHealth, Health
from shield.service.port import Shield

SERVICE = "orchestrator"
_LIMIT = 2.0  # seconds a look at the orchestrator may take
_STREAMS = frozenset({"events", "put_upload", "upload"})
"""Calls that hand over or return a stream: their success is not known when they return."""


class GuardedShield:
    """Implements `shield.service.port.Shield` on another one."""

    def __init__(self, inner: Shield, breakers: Breakers) -> None:
        self._inner = inner
        self._breakers = breakers
        self._met = False

    async def health(self) -> Health:
        """`degraded` while the orchestrator is away: callers get typed errors then; `down` until it has answered once."""
        try:
            async with asyncio.timeout(_LIMIT):
                found = await self._inner.health()
        except (ShieldError, TimeoutError) as error:
            detail = getattr(error, "code", "timeout")
            there = DependencyHealth(name=SERVICE, status="degraded" if self._met else "down", detail=detail)
            return Health(status=there.status, version=__version__, dependencies=[there])
        self._met = True
        there = DependencyHealth(name=SERVICE, status="ok" if found.status == "ok" else "degraded", detail=found.status)
        return Health(status=there.status, version=__version__, dependencies=[there, *found.dependencies])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._inner, name)
        if name in _STREAMS:
            return method

        async def call(*args: Any, **options: Any) -> Any:
            return await self._breakers.call(SERVICE, lambda: method(*args, **options))

        return call
