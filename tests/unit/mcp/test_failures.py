"""How the tools fail, in both protocol eras: in one form, with a stable code, quoting nothing."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from fastmcp import Client, FastMCP
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shield.auth import LOCAL, Principal
from shield.errors import InvalidRequest, ShieldError, Unauthenticated, UnknownJob, leaf_errors
from shield.mcp import create_mcp
from shield.service.models import (
    FindRequest,
)
from shield.settings import load
from shield.telemetry.metrics import Metrics
from tests.unit.mcp.support import MINIMAL, SECRET, SNAPSHOT, call, counted, error_of
from tests.unit.stand_in import JOB, StandIn


class TestHowItFails:
    @pytest.mark.parametrize(
        ("tool", "arguments", "field"),
        [
            ("qdrant_find", {}, "query"),
            ("qdrant_find", {"query": ""}, "query"),
            ("qdrant_find", {"query": "q", "limit": "10"}, "limit"),
            ("qdrant_find", {"query": "q", "limit": 101}, "limit"),
            ("qdrant_find", {"query": "q", "made_up": 1}, "made_up"),
            ("qdrant_find", {"query": "q", "filters": {"host": None}}, "filters.host"),
            ("qdrant_find", {"query": "q", "filters": {f"k{n}": 1 for n in range(17)}}, "filters"),
            ("crawl_web", {"url": "https://e.org/", "max_pages": 0}, "max_pages"),
            ("crawl_web", {"url": "https://e.org/", "allowed_domains": ["e"] * 51}, "allowed_domains"),
            ("crawl_web", {"url": "x" * 2049}, "url"),
            ("ingest_doc", {"upload_id": "not-a-uuid"}, "upload_id"),
            ("ingest_doc", {"path": 1}, "path"),
            ("get_job_status", {"job_id": str(JOB), "wait_seconds": 46}, "wait_seconds"),
            ("get_job_status", {"job_id": str(JOB), "outcomes_after": -1}, "outcomes_after"),
            ("list_jobs", {"status": "lost"}, "status"),
            ("lightrag_query", {"query": "q", "mode": "magic"}, "mode"),
        ],
    )
    async def test_a_wrong_argument_is_named(
        self, client: Client[Any], shield: StandIn, tool: str, arguments: dict[str, Any], field: str
    ) -> None:
        error = error_of(await call(client, tool, **arguments))
        assert error["code"] == "request.invalid"
        assert not error["retryable"]
        assert any(item["field"].startswith(field) for item in error["details"]["fields"])
        assert field in error["message"]
        assert shield.calls == []

    async def test_every_error_of_the_port_arrives_as_it_is(self, client: Client[Any], shield: StandIn) -> None:
        for leaf in leaf_errors().values():
            shield.raises = raised = leaf(retry_after=1.5, limit=3)
            assert error_of(await call(client, "list_knowledge_bases")) == raised.public()

    async def test_an_unknown_tool_is_an_error_like_any_other(self, client: Client[Any]) -> None:
        assert error_of(await call(client, "no_such_tool", query=SECRET))["code"] == "request.tool_not_found"

    async def test_a_principal_that_cannot_be_told_is_an_error_of_the_call(self, shield: StandIn) -> None:
        def nobody() -> Principal:
            raise Unauthenticated

        async with Client(create_mcp(shield, Metrics(), load(), principal=nobody)) as client:
            for tool, arguments in MINIMAL.items():
                assert error_of(await call(client, tool, **arguments))["code"] == "auth.required"
        assert shield.calls == []

    async def test_a_call_that_takes_too_long_is_stopped(self, shield: StandIn) -> None:
        shield.stuck = asyncio.Event()
        metrics = Metrics()
        mcp = create_mcp(shield, metrics, load(query={"timeout": 0.05}), principal=lambda: LOCAL)
        async with Client(mcp) as client:
            error = error_of(await call(client, "lightrag_query", query=SECRET))
        assert error["code"] == "query.timeout"
        assert error["retryable"]
        assert counted(metrics, "shield_tool_errors_total", "tool_name", "code", "fault") == {
            ("lightrag_query", "query.timeout", "server"): 1
        }

    @pytest.mark.parametrize("bug", [RuntimeError(SECRET), TimeoutError(SECRET), KeyError(SECRET), ValueError(f"x\n{SECRET}")], ids=repr)
    async def test_a_bug_tells_a_correlation_id_and_nothing_else(
        self, client: Client[Any], shield: StandIn, caplog: pytest.LogCaptureFixture, bug: Exception
    ) -> None:
        shield.raises = bug
        result = await call(client, "qdrant_find", query="q")
        error = error_of(result)
        assert error["code"] == "request.internal"
        assert SECRET not in str(result)
        [record] = [record for record in caplog.records if record.message == "tool_crashed"]
        assert record.__dict__["correlation_id"] == error["details"]["correlation_id"]
        assert record.exc_info

    async def test_a_pydantic_error_from_within_is_our_bug_and_not_the_callers(self, client: Client[Any], shield: StandIn) -> None:
        try:
            FindRequest.model_validate({"query": SECRET, "limit": 0})
        except ValueError as error:
            shield.raises = error
        result = await call(client, "qdrant_find", query="q")
        assert error_of(result)["code"] == "request.internal"
        assert SECRET not in str(result)

    async def test_neither_errors_nor_logs_quote_what_was_sent(
        self, client: Client[Any], shield: StandIn, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG, "shield")
        attempts: list[tuple[str, dict[str, Any], ShieldError | None]] = [
            ("qdrant_find", {"query": SECRET, "limit": 0}, None),
            ("qdrant_find", {"query": [SECRET]}, None),
            ("qdrant_store", {"text": {"a": SECRET}}, None),
            ("qdrant_store", {"text": SECRET, "metadata": {"k": {"deep": SECRET}}}, None),
            ("ingest_doc", {"text": SECRET, "upload_id": SECRET}, None),
            ("lightrag_query", {"query": SECRET, "mode": SECRET}, None),
            ("get_job_status", {"job_id": SECRET}, None),
            ("qdrant_find", {"query": SECRET}, UnknownJob()),
            ("qdrant_store", {"text": SECRET}, InvalidRequest()),
        ]
        for tool, arguments, failure in attempts:
            shield.raises = failure
            result = await call(client, tool, **arguments)
            error_of(result)
            assert SECRET not in str(result)
        captured = capfd.readouterr()
        assert SECRET not in caplog.text + captured.out + captured.err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def _parameters(tool: str) -> list[str]:
    return sorted(json.loads(SNAPSHOT.read_text(encoding="utf-8"))[tool]["parameters"])


@given(data=st.data())
@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_argument_whatever_breaks_a_tool(mcp: FastMCP[Any], shield: StandIn, data: st.DataObject) -> None:
    """Any JSON in any parameter is either accepted or named; never a crash."""
    tool = data.draw(st.sampled_from(sorted(MINIMAL)))
    names = st.sampled_from([*_parameters(tool), "made_up"])
    arguments = {**MINIMAL[tool], **data.draw(st.dictionaries(names, JSON, max_size=4))}
    result = await mcp.call_tool(tool, arguments)
    if result.is_error:
        assert result.structured_content is not None
        assert result.structured_content["code"] in {"request.invalid", "document.path_refused"}
