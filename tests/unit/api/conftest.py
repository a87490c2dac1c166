"""An application over the stand-in, and a client of it without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from shield.api.app import create_app
from shield.service.port import Shield
from shield.settings import Settings, load
from tests.unit.stand_in import StandIn


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def api_settings() -> Settings:
    return load(port=0, api={"keep_alive": 0.05, "linger": 0.2, "body_idle": 0.2})


@pytest.fixture
def app(stand_in: StandIn, api_settings: Settings) -> FastAPI:
    port: Shield = stand_in
    return create_app(port, api_settings)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000") as client:
        yield client
