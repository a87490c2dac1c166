"""The synthetic probe against a real MCP endpoint: what it calls, and which word it has for each way to fail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from shield.app.probe import Probe, ProbeProcess, current_token
from shield.auth import LOCAL, Principal
from shield.errors import CircuitOpen, ConfigInvalid
from shield.mcp import create_mcp, http_app
from shield.service.models import FindRequest, FindResult
from shield.settings import Settings, load, seconds
from shield.telemetry.metrics import Metrics
from shield.telemetry.series import Role
from tests.unit.stand_in import StandIn
from tests.unit.telemetry.test_metrics import get, value


class Slow(StandIn):
    """Answers a search when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()

    async def find(self, who: Principal, request: FindRequest) -> FindResult:
        await self.free.wait()
        return await super().find(who, request)


@pytest.fixture
def shield() -> Slow:
    return Slow()


@pytest.fixture
async def url(shield: Slow) -> AsyncIterator[str]:
    app = http_app(create_mcp(shield, Metrics(), load(), principal=lambda: LOCAL))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=2))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        shield.free.set()
        server.should_exit = True
        await asyncio.wait_for(task, 10)


def probe(url: str, **settings: Any) -> Probe:
    return Probe(load(probe={"url": url, "timeout": "20", **settings}), token=lambda: None)


async def test_a_probe_looks_something_up_in_its_knowledge_base(url: str, shield: Slow) -> None:
    met = await probe(url, knowledge_base="watched").ask()
    assert met.result == "ok"
    assert 0 < met.seconds < 20
    ((name, asked),) = shield.calls
    assert (name, asked["request"].knowledge_base, asked["request"].limit) == ("find", "watched", 1)


async def test_a_tool_that_fails_is_an_error_with_its_code(url: str, shield: Slow) -> None:
    shield.raises = CircuitOpen(retry_after=12.0, service="qdrant")
    met = await probe(url).ask()
    assert (met.result, met.detail) == ("error", "dependency.circuit_open")


async def test_a_tool_that_does_not_answer_in_time_is_a_timeout(url: str, shield: Slow) -> None:
    shield.free.clear()
    met = await probe(url, timeout="0.3").ask()
    assert (met.result, met.detail) == ("timeout", "no answer within 0.3 s")
    assert met.seconds >= 0.3


async def test_a_server_that_is_away_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert (await probe(f"http://127.0.0.1:{port}/mcp").ask()).result == "unreachable"


async def test_probes_follow_each_other_at_their_pace_and_are_shown(url: str, shield: Slow) -> None:
    metrics, stop = Metrics(role=Role.PROBE), asyncio.Event()
    assert value(metrics, "shield_probe_success") is None  # nothing is claimed before the first one has ended
    running = asyncio.create_task(probe(url, interval="0.05").run(metrics, stop))
    await until(metrics, "ok", 3)
    assert value(metrics, "shield_probe_success") == 1
    assert (value(metrics, "shield_probe_last_timestamp_seconds") or 0) > 1_700_000_000
    shield.raises = CircuitOpen(service="qdrant")
    await until(metrics, "error", 1)
    assert value(metrics, "shield_probe_success") == 0
    stop.set()
    await asyncio.wait_for(running, 30)
    asked = sum(value(metrics, "shield_probes_total", result=word) or 0 for word in ("ok", "error", "unreachable", "timeout"))
    assert asked == value(metrics, "shield_probe_duration_seconds_count")


async def test_the_process_serves_its_metrics_and_ends_when_it_is_told(url: str) -> None:
    settings = load(host="127.0.0.1", metrics_port=0, probe={"url": url, "interval": seconds(60)})
    async with _within(30), ProbeProcess(settings) as process:
        _, _, body = await asyncio.to_thread(get, process.addresses.metrics_url)
        assert 'shield_probes_total{result="ok"}' in body
        assert "circuit_breaker_state" not in body


def test_without_an_address_it_says_which_setting_is_missing() -> None:
    with pytest.raises(ConfigInvalid, match="SHIELD_PROBE_URL"):
        Probe(load())
    assert Probe(Settings(url="http://127.0.0.1:8000/")).address == "http://127.0.0.1:8000/mcp"


def test_a_credential_that_is_replaced_in_its_file_is_used_from_then_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    file = tmp_path / "key"
    monkeypatch.setenv("SHIELD_API_KEY", "the command line's")
    monkeypatch.setenv("SHIELD_PROBE_API_KEY_FILE", str(file))
    for key in ("one", "two"):
        file.write_text(key, encoding="utf-8")
        assert current_token() == key
    monkeypatch.delenv("SHIELD_PROBE_API_KEY_FILE")
    assert current_token() == "the command line's"
    monkeypatch.delenv("SHIELD_API_KEY")
    assert current_token() is None


async def until(metrics: Metrics, result: str, count: int) -> None:
    async with _within(30):
        while (value(metrics, "shield_probes_total", result=result) or 0) < count:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _within(limit: float) -> AsyncIterator[None]:
    async with asyncio.timeout(limit):
        yield
