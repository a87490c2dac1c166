"""The application over the stand-in, behind a real socket and without one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from shield.api.app import create_app
from shield.service.remote import RemoteShield
from shield.settings import load
from tests.unit.stand_in import StandIn


class _Server(uvicorn.Server):
    """Without signal handlers: the process is the test runner's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """The address of a uvicorn server of `app` on a free loopback port."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # asyncio sets TCP_NODELAY only where the protocol is named: 40 ms a call
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1)
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.005)
                assert not task.done()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await asyncio.wait_for(task, 5)


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def app(stand_in: StandIn) -> FastAPI:
    return create_app(stand_in, load(port=0, api={"keep_alive": 0.05, "linger": 0.5}))


@pytest.fixture
async def server(app: FastAPI) -> AsyncIterator[str]:
    async with serving(app) as url:
        yield url


@pytest.fixture(params=["socket", "asgi"])
async def remote(request: pytest.FixtureRequest, app: FastAPI) -> AsyncIterator[RemoteShield]:
    if request.param == "socket":
        async with serving(app) as url, RemoteShield(url) as remote:
            yield remote
    else:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client, RemoteShield("http://localhost", client) as remote:
            yield remote
