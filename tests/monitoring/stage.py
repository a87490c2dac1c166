"""A real run to look at: a fleet, the operator on a real API server, the probe, a Prometheus that scrapes them all, and work for them.

Work comes in rounds, since a rate needs two looks: questions that find something and that do not, callers' mistakes, documents, crawls of a site that is
there and of one that is not, IngestJobs. In the first round the index is killed, until its circuit opens, and revived.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmcp import Client

from kind.control_plane import ControlPlane
from tests.bench.operator.bed import BASE, Bed, bed
from tests.fleet import Fleet, Member
from tests.fleet.members import free_port
from tests.kubernetes.replica import install
from tests.monitoring.prometheus import Prometheus, prometheus
from tests.peers.site import Site

_TEAM = "team-a"
_SETTINGS = {"SHIELD_LOG_LEVEL": "warning", "SHIELD_BREAKER_PAUSE": "2", "SHIELD_BREAKER_THRESHOLD": "3", "SHIELD_HEALTH_PROBE": "1"}
_HARM = 60.0  # seconds until a circuit must have opened


@dataclass(eq=False)
class Stage:
    """What runs, and how to give it work."""

    fleet: Fleet
    bed: Bed
    site: Site
    prometheus: Prometheus
    rounds: int = 0

    async def work(self) -> None:
        """Round after round, until cancelled."""
        await self.fill()
        while True:
            await self.round()
            if self.rounds == 1:
                await self.harm()

    async def fill(self) -> None:
        """Something to be found."""
        await self._call("qdrant_store", text="The harbour crane of Bremen lifts forty tons.", source="note:crane")

    async def round(self) -> None:
        """A little of everything."""
        self.rounds += 1
        number = self.rounds
        calls: list[tuple[str, dict[str, Any]]] = [
            ("qdrant_find", {"query": "harbour crane of Bremen"}),
            ("qdrant_find", {"query": "zzqx wvvk unheard-of"}),
            ("lightrag_query", {"query": "How much does the crane in Bremen lift?"}),
            ("qdrant_find", {"query": ""}),
            ("list_jobs", {}),
            (
                "ingest_doc",
                {"text": f"Report {number}: the lock gate number {number} was painted green by Ada Smith.", "source": f"report:{number}"},
            ),
            ("crawl_web", {"url": f"{self.site.url}/?round={number}", "max_pages": 3}),
            ("crawl_web", {"url": f"{self.site.url}/gone/{number}", "max_pages": 1}),
        ]
        for tool, arguments in calls:
            answer = await self._call(tool, **arguments)
            if job := answer.get("job_id"):
                await self._call("get_job_status", job_id=job, wait_seconds=20)
        body = {
            "apiVersion": "shield.hx-citadel.io/v1alpha1",
            "kind": "IngestJob",
            "metadata": {"name": f"round-{number}"},
            "spec": {"source": {"web": {"url": "https://example.com/"}}, "knowledgeBase": BASE},
        }
        await self.bed.api.create("ingestjobs", _TEAM, body)

    async def harm(self) -> None:
        """Kill the index, ask until its circuit is open, and revive it."""
        self.fleet.qdrant.kill()
        async with asyncio.timeout(_HARM):
            while not any(value == 2 for value in await self.prometheus.query('circuit_breaker_state{service="qdrant"}')):
                await self._call("qdrant_find", query="harbour crane of Bremen")
        await asyncio.to_thread(self.fleet.qdrant.start)

    async def _call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        async with Client(self.fleet.mcp_url) as client:
            answer = await client.call_tool(tool, arguments, raise_on_error=False)
        return dict(answer.structured_content or {})


@asynccontextmanager
async def stage(directory: Path, program: Path, rules: str) -> AsyncIterator[Stage]:
    """Start everything inside the block.

    Args:
        directory: for logs and data.
        program: Prometheus.
        rules: the rules that it evaluates.
    """
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(Site(pages=6))
        environment = {**_SETTINGS, "SHIELD_EGRESS_ALLOW": site.allow}
        fleet = await _entered(stack, Fleet(workers=1, environment=environment))
        plane = await _entered(stack, ControlPlane(directory / "plane", kwok=True))
        await asyncio.to_thread(install, plane)
        running = await stack.enter_async_context(bed(plane, fleet, directory / "bed", kwok=True, row_patience="1"))
        await running.namespace(_TEAM)
        port = free_port()
        probe = _probe(fleet, directory, port)
        stack.callback(probe.destroy)
        await asyncio.to_thread(probe.start, within=60)
        targets = {
            "shield-mcp": [_target(fleet.metrics_url("mcp"))],
            "shield-api": [_target(fleet.metrics_url("api"))],
            "shield-worker": [_target(fleet.metrics_url(member.name)) for member in fleet.workers],
            "shield-operator": [_target(running.replica._metrics)],
            "shield-probe": [f"127.0.0.1:{port}"],
        }
        seen = await stack.enter_async_context(prometheus(program, directory, rules, targets, {"shield-mcp": {"track": "stable"}}))
        yield Stage(fleet, running, site, seen)


async def _entered(stack: AsyncExitStack, manager: Any) -> Any:
    """Enter a context manager that blocks, in a thread."""
    entered = await asyncio.to_thread(manager.__enter__)
    stack.push_async_callback(asyncio.to_thread, manager.__exit__, None, None, None)
    return entered


def _probe(fleet: Fleet, directory: Path, port: int) -> Member:
    environment = {
        "SHIELD_PROBE_URL": fleet.mcp_url,
        "SHIELD_PROBE_INTERVAL": "1",
        "SHIELD_METRICS_PORT": str(port),
        "SHIELD_LOG_LEVEL": "warning",
    }
    return Member("probe", [sys.executable, "-m", "shield", "probe"], directory / "probe.log", environment=environment, ready=None)


def _target(url: str) -> str:
    return url.removeprefix("http://").removesuffix("/metrics")
