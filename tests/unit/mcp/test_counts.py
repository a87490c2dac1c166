"""What is counted of the tools' calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastmcp import Client, FastMCP

from shield.errors import UnknownJob
from shield.telemetry.metrics import Metrics
from tests.unit.mcp.support import MINIMAL, call, counted
from tests.unit.stand_in import JOB, StandIn


class TestWhatIsCounted:
    async def test_calls_by_tool_and_status_with_their_durations(self, counting: FastMCP[Any], shield: StandIn, metrics: Metrics) -> None:
        async with Client(counting) as client:
            await call(client, "qdrant_find", query="q")
            await call(client, "qdrant_find", query="")
            shield.raises = UnknownJob()
            await call(client, "get_job_status", job_id=str(JOB))
            await call(client, "made_up_tool")
        assert counted(metrics, "tool_calls_total", "tool_name", "status") == {
            ("qdrant_find", "started"): 2,
            ("qdrant_find", "success"): 1,
            ("qdrant_find", "error"): 1,
            ("get_job_status", "started"): 1,
            ("get_job_status", "error"): 1,
            ("unknown", "started"): 1,
            ("unknown", "error"): 1,
        }
        assert counted(metrics, "shield_tool_errors_total", "tool_name", "code", "fault") == {
            ("qdrant_find", "request.invalid", "caller"): 1,
            ("get_job_status", "job.not_found", "caller"): 1,
            ("unknown", "request.tool_not_found", "caller"): 1,
        }
        assert counted(metrics, "shield_tool_answers_total", "tool_name", "found") == {("qdrant_find", "true"): 1}
        assert counted(metrics, "tool_duration_seconds_count", "tool_name") == {
            ("qdrant_find",): 2,
            ("get_job_status",): 1,
            ("unknown",): 1,
        }

    async def test_every_tool_shows_from_the_start(self, counting: FastMCP[Any], metrics: Metrics) -> None:
        text = metrics.render()[0].decode()
        for tool in MINIMAL:
            assert f'tool_calls_total{{status="error",tool_name="{tool}"}} 0.0' in text

    async def test_a_call_whose_client_went_away_is_counted_as_started_only(
        self, counting: FastMCP[Any], shield: StandIn, metrics: Metrics
    ) -> None:
        shield.stuck = asyncio.Event()
        task = asyncio.create_task(counting.call_tool("qdrant_find", {"query": "q"}))
        await asyncio.wait_for(shield.reached.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counted(metrics, "tool_calls_total", "tool_name", "status") == {("qdrant_find", "started"): 1}
