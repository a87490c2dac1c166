"""Servers and clients of the tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastmcp import Client, FastMCP

from shield.auth import LOCAL
from shield.mcp import create_mcp
from shield.settings import load
from shield.telemetry.metrics import Metrics
from tests.unit.stand_in import StandIn


@pytest.fixture(scope="session")
def served() -> tuple[StandIn, FastMCP[Any]]:
    """A server for all tests that count nothing: building its schemas takes a while."""
    shield = StandIn()
    return shield, create_mcp(shield, Metrics(), load(), principal=lambda: LOCAL)


@pytest.fixture
def shield(served: tuple[StandIn, FastMCP[Any]]) -> StandIn:
    served[0].reset()
    return served[0]


@pytest.fixture
def mcp(served: tuple[StandIn, FastMCP[Any]]) -> FastMCP[Any]:
    return served[1]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def counting(shield: StandIn, metrics: Metrics) -> FastMCP[Any]:
    return create_mcp(shield, metrics, load(), principal=lambda: LOCAL)


@pytest.fixture(params=["auto", "legacy"])
async def client(request: pytest.FixtureRequest, mcp: FastMCP[Any], shield: StandIn) -> AsyncIterator[Client[Any]]:
    async with Client(mcp, mode=request.param) as client:
        yield client
