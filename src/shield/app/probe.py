"""The synthetic probe: a tool call every half minute, by a real MCP client, as the measure of availability.

A probe looks something up in a knowledge base, so it takes the way of every question: MCP server, orchestrator, embedding, index, database. It
does not matter whether anything is found. Each begins anew, connection included, at a fixed pace and ends within its limit; what it met is one of
four words (`ok`, `error`, `unreachable`, `timeout`) for the metrics, and a line in the log. The credential is read anew each time, so one that
is replaced in its file goes on working.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from shield.app.fleet import FleetProcess
from shield.errors import ConfigInvalid
from shield.resilience.waiting import wait
from shield.settings import Settings, load
from shield.telemetry.metrics import Metrics
from shield.telemetry.series import Role

if TYPE_CHECKING:
    from fastmcp import Client

log = structlog.get_logger(__name__)

TOOL = "qdrant_find"
QUESTION = "synthetic probe"


@dataclass(frozen=True)
class Met:
    """How a probe ended."""

    result: str
    """`ok`, `error` (the tool failed), `unreachable` (no answer of MCP) or `timeout`."""
    seconds: float
    detail: str = ""
    """The tool's code, or what kind of error kept MCP from answering."""


def current_token() -> str | None:
    """The credential as it is configured now."""
    settings = load()
    key = settings.probe.api_key or settings.api.key
    return key.get_secret_value() if key else None


class Probe:
    """Asks one MCP server."""

    def __init__(self, settings: Settings, *, token: Callable[[], str | None] = current_token) -> None:
        """Raises ConfigInvalid: no address is set."""
        self._settings = settings.probe
        self._token = token
        address = self._settings.url or (f"{settings.url.rstrip('/')}/mcp" if settings.url else None)
        if address is None:
            raise ConfigInvalid("`shield probe` needs SHIELD_PROBE_URL, the address of an MCP endpoint such as http://127.0.0.1:8000/mcp.")
        self.address = address

    async def ask(self) -> Met:
        """One probe; never fails."""
        from fastmcp import Client  # before the clock runs: loading it takes as long as many probes

        began = time.perf_counter()
        result, detail = "timeout", ""
        try:
            async with asyncio.timeout(self._settings.timeout.total_seconds()):
                result, detail = await self._call(Client(self.address, auth=self._token()))
        except TimeoutError:
            detail = f"no answer within {self._settings.timeout.total_seconds():g} s"
        except Exception as error:  # noqa: BLE001  whatever goes wrong here is what is being measured
            result, detail = "unreachable", type(error).__name__
        return Met(result, time.perf_counter() - began, detail)

    async def run(self, metrics: Metrics, stop: asyncio.Event) -> None:
        """Ask at a fixed pace until `stop` is set; probes that would have begun while one lasted are left out."""
        loop, pace = asyncio.get_running_loop(), self._settings.interval.total_seconds()
        due = loop.time()
        while not stop.is_set():
            met = await self.ask()
            metrics.probe_ended(met.result, met.seconds, time.time())
            level = log.debug if met.result == "ok" else log.warning
            level("probe", result=met.result, detail=met.detail, seconds=round(met.seconds, 3))
            due = max(due + pace, loop.time())
            await wait(stop, due - loop.time())

    async def _call(self, client: Client[Any]) -> tuple[str, str]:
        arguments = {"query": QUESTION, "limit": 1, "knowledge_base": self._settings.knowledge_base}
        async with client:
            answer = await client.call_tool(TOOL, arguments, raise_on_error=False)
        code = str((answer.structured_content or {}).get("code", ""))
        return ("error", code or "no code") if answer.is_error else ("ok", "")


class ProbeProcess(FleetProcess):
    """A probe with its metrics."""

    role = Role.PROBE

    def __init__(self, settings: Settings) -> None:
        self._probe = Probe(settings)
        super().__init__(settings)

    async def _start(self) -> None:
        metrics = Metrics(role=self.role)
        metrics_url = self._expose(metrics)
        self._run("probe", self._probe.run(metrics, self._stop))
        self._announce(metrics_url)
