"""A worker's liveness and readiness, from outside: alive while it waits, ready while its row counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from shield.app.fleet import WorkerProcess
from shield.errors import DatabaseUnavailable
from shield.settings import Settings, load
from tests.fleet.members import free_port
from tests.integration.worker.conftest import Outage
from tests.peers.valkey import Valkey


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def worker_settings(data_dir: Path, valkey: Valkey, port: int) -> Settings:
    return load(
        mode="server",
        data_dir=data_dir,
        metrics_port=port,
        redis={"url": valkey.url, "timeout": 0.5},
        qdrant={"url": f"http://127.0.0.1:{free_port()}"},
        postgres={"dsn": f"postgresql://nobody@/none?host={data_dir}", "schema_wait": 1, "connect_timeout": 1},
        jobs={"lease": 1.5, "heartbeat": 0.3, "relay": 0.2, "drain": 0.5},
        health={"probe": 0.2},
    )


@asynccontextmanager
async def probing(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
        yield client


async def until(client: httpx.AsyncClient, path: str, wanted: str) -> httpx.Response:
    """The answer of `path` once it says `wanted`."""
    async with asyncio.timeout(30):
        while True:
            try:
                answer = await client.get(path)
            except httpx.TransportError:
                pass  # it does not serve yet
            else:
                if wanted in answer.text:
                    return answer
            await asyncio.sleep(0.05)


async def test_a_worker_without_a_database_is_alive_but_not_ready(worker_settings: Settings, port: int) -> None:
    async def start() -> None:
        async with WorkerProcess(worker_settings):
            pass

    async with probing(port) as client:
        worker = asyncio.create_task(start())
        assert (await until(client, "/livez", "ok")).status_code == 200
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["waits_for"]) == (503, ["postgres"])
        with pytest.raises(DatabaseUnavailable):
            await worker


async def test_a_worker_is_ready_while_its_row_counts_and_shows_what_is_away(
    worker_settings: Settings, dsn: str, port: int, outage: Outage, valkey: Valkey
) -> None:
    postgres = worker_settings.postgres.model_copy(update={"dsn": type(worker_settings.postgres.dsn)(dsn)})  # type: ignore[misc]
    async with probing(port) as client:
        async with WorkerProcess(worker_settings.model_copy(update={"postgres": postgres})):
            assert (await until(client, "/readyz", '"ok"')).status_code == 200
            await until(client, "/metrics", 'circuit_breaker_state{service="redis"} 0.0')
            valkey.kill()
            await until(client, "/metrics", 'circuit_breaker_state{service="redis"} 2.0')
            assert (await client.get("/readyz")).status_code == 200  # it looks into the database itself
            async with outage():
                await until(client, "/metrics", 'circuit_breaker_state{service="postgres"} 2.0')
                answer = await until(client, "/readyz", "registration")
                assert answer.status_code == 503
                assert (await client.get("/livez")).status_code == 200
            assert (await until(client, "/readyz", '"ok"')).status_code == 200
            text = (await client.get("/metrics")).text
            assert "shield_worker_busy_slots 0.0" in text
            assert "shield_queue_oldest_seconds" not in text
        with pytest.raises(httpx.TransportError):
            await client.get("/livez")
