"""Liveness and readiness on the metrics port: told by a thread, whatever the event loop does."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from shield.settings import seconds
from shield.telemetry.health import Health, Heartbeat
from shield.telemetry.metrics import Metrics
from shield.telemetry.server import MetricsServer

LIMIT = 0.3


def get(server: MetricsServer, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture
def heartbeat() -> Heartbeat:
    return Heartbeat(seconds(LIMIT))


@pytest.fixture
def missing() -> list[str]:
    return []


@pytest.fixture
def server(heartbeat: Heartbeat, missing: list[str]) -> Iterator[MetricsServer]:
    with MetricsServer(Metrics(), "127.0.0.1", 0, Health(heartbeat, lambda: missing)) as server:
        yield server


async def until(server: MetricsServer, status: int) -> dict[str, Any]:
    for _ in range(500):
        answer = await asyncio.to_thread(get, server, "/livez")
        if answer[0] == status:
            return answer[1]
        await asyncio.sleep(0.01)
    raise AssertionError(f"/livez does not become {status}")


async def test_a_loop_that_runs_is_alive_however_long_nothing_happens(server: MetricsServer, heartbeat: Heartbeat) -> None:
    heartbeat.start()
    assert (await until(server, 200))["status"] == "ok"
    await asyncio.sleep(2 * LIMIT)
    assert (await until(server, 200))["lag_seconds"] <= LIMIT
    heartbeat.stop()


async def test_a_loop_that_hangs_is_told_while_it_hangs_and_forgiven_when_it_goes_on(server: MetricsServer, heartbeat: Heartbeat) -> None:
    heartbeat.start()
    told: list[tuple[int, dict[str, Any]]] = []
    seen = threading.Event()

    def look() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            told.append(get(server, "/livez"))
            if told[-1][0] == 503:
                break
            time.sleep(0.02)
        seen.set()

    prober = threading.Thread(target=look)
    prober.start()
    assert seen.wait(15)  # this blocks the event loop, for real
    prober.join()
    status, body = told[-1]
    assert (status, body["status"]) == (503, "hung")
    assert body["lag_seconds"] > LIMIT
    await until(server, 200)
    heartbeat.stop()


async def test_a_stopped_heartbeat_leaves_nothing_in_the_loop(heartbeat: Heartbeat) -> None:
    heartbeat.start()
    heartbeat.stop()
    heartbeat.stop()
    before = heartbeat.lag()
    await asyncio.sleep(0.3)
    assert heartbeat.lag() > before


def test_readiness_names_what_is_waited_for(server: MetricsServer, missing: list[str]) -> None:
    missing.append("postgres")
    status, body = get(server, "/readyz")
    assert (status, body["status"], body["waits_for"]) == (503, "waiting", ["postgres"])
    missing.clear()
    status, body = get(server, "/readyz")
    assert (status, body["status"], body["waits_for"]) == (200, "ok", [])


def test_without_a_health_there_are_metrics_only() -> None:
    with MetricsServer(Metrics(), "127.0.0.1", 0) as server:
        for path in ("/livez", "/readyz"):
            with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5)
            refused.value.close()
