"""Health over HTTP, and a whole replica that starts without a cluster and ends when it is told to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from shield_operator.health import Lag, health_app, metrics_app, serving
from shield_operator.metrics import Metrics
from shield_operator.process import Ports, operate
from shield_operator.settings import Settings
from tests.unit.operator.test_settings import KUBECONFIG


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_health_is_the_event_loops_and_readiness_the_caches() -> None:
    metrics = Metrics()
    lag = Lag(metrics, poll=0.001, limit=1)
    synced = False
    async with serving(health_app(lag, synced=lambda: synced, leading=lambda: False), "127.0.0.1", 0) as port:
        assert await get(port, "/healthz") == (200, '{"late": false}')
        assert (await get(port, "/readyz"))[0] == 503
        synced = True
        assert await get(port, "/readyz") == (200, '{"synced": true, "leading": false}')
        lag._last = 2
        assert (await get(port, "/healthz"))[0] == 503


async def test_the_loops_lag_is_measured() -> None:
    lag = Lag(Metrics(), poll=0.001, limit=0)
    measuring = asyncio.create_task(lag.measure())
    async with asyncio.timeout(3):
        while not lag.late:
            await asyncio.sleep(0.001)
    measuring.cancel()
    await asyncio.gather(measuring, return_exceptions=True)


async def test_metrics_have_controller_runtimes_names() -> None:
    metrics = Metrics()
    metrics.queue("ingestjob").added()
    async with serving(metrics_app(metrics), "127.0.0.1", 0) as port:
        status, text = await get(port, "/metrics")
    assert status == 200
    assert 'workqueue_adds_total{name="ingestjob"} 1.0' in text
    assert "# TYPE controller_runtime_reconcile_total counter" in text
    assert "shield_operator_build_info{" in text


async def test_a_replica_without_api_server_is_alive_not_ready_and_ends_in_order(tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(KUBECONFIG)
    settings = Settings(
        kubeconfig=str(config), lease_namespace="shield", worker_image="shield:test", host="127.0.0.1", health_port=0, metrics_port=0,
        crd_poll=0.01,
    )  # fmt: skip
    stop, ports, installed = asyncio.Event(), Ports(), []
    running = asyncio.create_task(operate(settings, stop, signals=lambda: installed.append(1), ports=ports))
    async with asyncio.timeout(10):
        while not ports.metrics:
            await asyncio.sleep(0.01)
        assert (await get(ports.health, "/healthz"))[0] == 200
        assert (await get(ports.health, "/readyz"))[0] == 503
        assert "leader_election_master_status" in (await get(ports.metrics, "/metrics"))[1]
        stop.set()
        await running
    assert installed
