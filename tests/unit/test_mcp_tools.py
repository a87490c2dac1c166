"""The tools as an MCP client sees them, in both protocol eras: what they take, what they pass on, and how they fail."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client, FastMCP
from fastmcp.client.client import CallToolResult
from fastmcp.utilities.json_schema import dereference_refs
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from shield.auth import LOCAL, Principal
from shield.errors import InvalidRequest, ShieldError, Unauthenticated, UnknownJob, leaf_errors
from shield.mcp import create_mcp
from shield.service.models import (
    Budget,
    CrawlSpec,
    DocumentSpec,
    FindRequest,
    IngestRequest,
    JobAccepted,
    QueryRequest,
    StoreRequest,
    UploadCreate,
    Webhook,
)
from shield.settings import load
from shield.telemetry.metrics import Metrics
from tests.unit.stand_in import DOCUMENT, JOB, StandIn

SNAPSHOT = Path(__file__).with_name("mcp_tools.json")
SIX = {"crawl_web", "ingest_doc", "qdrant_find", "qdrant_store", "lightrag_query", "get_job_status"}
SECRET = "the patient's name is Ada Lovelace"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

MINIMAL: dict[str, dict[str, Any]] = {
    "crawl_web": {"url": "https://example.org/"},
    "ingest_doc": {"text": "A note."},
    "create_upload": {"filename": "a.pdf"},
    "qdrant_find": {"query": "pumps"},
    "qdrant_store": {"text": "A note."},
    "lightrag_query": {"query": "Why do pumps fail?"},
    "get_job_status": {"job_id": str(JOB)},
    "cancel_job": {"job_id": str(JOB)},
    "list_jobs": {},
    "list_documents": {},
    "get_document": {"document_id": str(DOCUMENT)},
    "delete_document": {"document_id": str(DOCUMENT)},
    "list_knowledge_bases": {},
}
"""Every tool with as little as it takes."""


@pytest.fixture(scope="module")
def served() -> tuple[StandIn, FastMCP[Any]]:
    """A server for all tests that count nothing: building its schemas takes a while."""
    shield = StandIn()
    return shield, create_mcp(shield, Metrics(), load(), principal=lambda: LOCAL)


@pytest.fixture
def shield(served: tuple[StandIn, FastMCP[Any]]) -> StandIn:
    served[0].reset()
    return served[0]


@pytest.fixture
def mcp(served: tuple[StandIn, FastMCP[Any]]) -> FastMCP[Any]:
    return served[1]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def counting(shield: StandIn, metrics: Metrics) -> FastMCP[Any]:
    return create_mcp(shield, metrics, load(), principal=lambda: LOCAL)


@pytest.fixture(params=["auto", "legacy"])
async def client(request: pytest.FixtureRequest, mcp: FastMCP[Any], shield: StandIn) -> AsyncIterator[Client[Any]]:
    async with Client(mcp, mode=request.param) as client:
        yield client


async def call(client: Client[Any], tool: str, **arguments: Any) -> CallToolResult:
    return await client.call_tool(tool, arguments, raise_on_error=False)


def error_of(result: CallToolResult) -> dict[str, Any]:
    """The error, having checked that both forms say the same."""
    assert result.is_error
    assert result.structured_content is not None
    assert [json.loads(getattr(block, "text", "")) for block in result.content] == [result.structured_content]
    return result.structured_content


def counted(metrics: Metrics, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The series of a metric that are not 0, by the values of `labels`."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        for sample in family.samples
        if sample.name == name and sample.value
    }


def simplified(schema: dict[str, Any]) -> dict[str, Any]:
    """A property's limits: without title, default, description, and the null of an optional one."""
    options = [option for option in schema.get("anyOf", []) if option != {"type": "null"}]
    core = options[0] if len(options) == 1 else {**schema, "anyOf": options} if options else schema
    return {key: value for key, value in core.items() if key not in {"title", "default", "description"}}


def untitled(schema: Any) -> Any:
    """A schema without what FastMCP takes out of it at every depth: titles, and that an object is closed."""
    if isinstance(schema, list):
        return [untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: untitled(value) for key, value in schema.items() if key != "title" and (key, value) != ("additionalProperties", False)}


class TestWhatIsOffered:
    async def test_the_tools_are_the_committed_ones(self, mcp: FastMCP[Any]) -> None:
        async with Client(mcp) as client:
            tools = await client.list_tools()
        now = {
            tool.name: {
                "annotations": tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else None,
                "parameters": tool.input_schema["properties"],
                "required": tool.input_schema.get("required", []),
                "result": sorted((tool.output_schema or {}).get("properties", {})),
            }
            for tool in tools
        }
        if os.environ.get("UPDATE_SNAPSHOTS"):
            SNAPSHOT.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
        assert now == json.loads(SNAPSHOT.read_text(encoding="utf-8")), (
            "if this is meant: UPDATE_SNAPSHOTS=1 pytest tests/unit/test_mcp_tools.py"
        )

    async def test_both_eras_see_the_same_tools_in_the_same_order(self, mcp: FastMCP[Any], client: Client[Any]) -> None:
        async with Client(mcp) as other:
            assert await client.list_tools() == await other.list_tools()

    async def test_every_tool_says_what_it_does_what_it_takes_and_what_it_returns(self, client: Client[Any]) -> None:
        tools = {tool.name: tool for tool in await client.list_tools()}
        assert set(tools) == set(MINIMAL) > SIX
        for tool in tools.values():
            assert len(tool.description or "") > 60, tool.name
            assert tool.output_schema, tool.name
            assert tool.input_schema["additionalProperties"] is False, tool.name
            for name, schema in tool.input_schema["properties"].items():
                assert schema.get("description"), f"{tool.name}.{name}"

    async def test_annotations_tell_readers_from_writers_and_the_only_world_that_is_open(self, client: Client[Any]) -> None:
        hints = {tool.name: tool.annotations for tool in await client.list_tools() if tool.annotations}
        writers = {"crawl_web", "ingest_doc", "create_upload", "qdrant_store", "cancel_job", "delete_document"}
        assert {name for name, hint in hints.items() if not hint.read_only_hint} == writers
        assert {name for name, hint in hints.items() if hint.destructive_hint} == {
            "crawl_web",
            "ingest_doc",
            "qdrant_store",
            "delete_document",
        }
        assert {name for name, hint in hints.items() if hint.open_world_hint} == {"crawl_web", "ingest_doc"}
        assert {name for name, hint in hints.items() if not hint.idempotent_hint} == {"create_upload"}

    @pytest.mark.parametrize(
        ("tool", "model"),
        [
            ("crawl_web", CrawlSpec),
            ("ingest_doc", DocumentSpec),
            ("qdrant_find", FindRequest),
            ("qdrant_store", StoreRequest),
            ("lightrag_query", QueryRequest),
            ("create_upload", UploadCreate),
        ],
    )
    async def test_limits_and_defaults_are_those_of_the_request_models(self, mcp: FastMCP[Any], tool: str, model: type[BaseModel]) -> None:
        found = await mcp.get_tool(tool)
        assert found is not None
        parameters = found.parameters["properties"]
        fields = dereference_refs(model.model_json_schema())["properties"]  # tools refer to nothing: some clients cannot follow
        of_the_job = {"knowledge_base", "webhook_url", "budget_tokens"}  # flat here, in models of their own over REST
        assert set(parameters) - of_the_job == set(fields) - {"knowledge_base", "type"}
        for name, schema in parameters.items():
            if name not in fields:
                continue
            assert untitled(simplified(schema)) == untitled(simplified(fields[name])), name
            default = model.model_fields[name].get_default(call_default_factory=True)
            if name not in found.parameters.get("required", []):
                assert (schema.get("default") or default) == default, name
            if name != "knowledge_base" and "description" in fields[name] and name not in {"title", "metadata"}:
                assert schema["description"] == fields[name]["description"], name


class TestWhatIsPassedOn:
    @pytest.mark.parametrize(
        ("tool", "arguments", "method", "expected"),
        [
            (
                "crawl_web",
                {"url": "https://example.org/", "max_pages": 7, "max_depth": 0, "allowed_domains": ["example.org"], "metadata": {"team": "a"}},
                "ingest",
                {
                    "request": IngestRequest(
                        spec=CrawlSpec(
                            url="https://example.org/", max_pages=7, max_depth=0, allowed_domains=["example.org"], metadata={"team": "a"}
                        )
                    )
                },
            ),
            ("crawl_web", MINIMAL["crawl_web"], "ingest", {"request": IngestRequest(spec=CrawlSpec(url="https://example.org/"))}),
            (
                "ingest_doc",
                {"upload_id": str(JOB), "title": "T", "source": "s", "knowledge_base": "kb"},
                "ingest",
                {"request": IngestRequest(knowledge_base="kb", spec=DocumentSpec(upload_id=JOB, title="T", source="s")), "local_caller": False},
            ),
            (
                "crawl_web",
                {**MINIMAL["crawl_web"], "webhook_url": "https://example.org/told", "budget_tokens": 5000},
                "ingest",
                {
                    "request": IngestRequest(
                        spec=CrawlSpec(url="https://example.org/"), webhook=Webhook(url="https://example.org/told"), budget=Budget(tokens=5000)
                    )
                },
            ),
            ("ingest_doc", {**MINIMAL["ingest_doc"], "budget_tokens": 1}, "ingest", {"request": IngestRequest(spec=DocumentSpec(text="A note."), budget=Budget(tokens=1))}),
            (
                "qdrant_find",
                {"query": "q", "limit": 3, "filters": {"host": ["a", "b"], "metadata.year": {"gte": 2020}}, "cursor": "c", "max_tokens": 64},
                "find",
                {
                    "request": FindRequest.model_validate(
                        {"query": "q", "limit": 3, "filters": {"host": ["a", "b"], "metadata.year": {"gte": 2020}}, "cursor": "c", "max_tokens": 64}
                    )
                },
            ),
            ("qdrant_store", {"text": "t", "source": "s"}, "store", {"request": StoreRequest(text="t", source="s")}),
            ("lightrag_query", {"query": "q", "mode": "local"}, "query", {"request": QueryRequest(query="q", mode="local")}),
            (
                "get_job_status",
                {"job_id": str(JOB), "wait_seconds": 45, "outcomes_after": 20},
                "job",
                {"job_id": JOB, "wait": 45, "outcomes_after": 20},
            ),
            ("cancel_job", MINIMAL["cancel_job"], "cancel", {"job_id": JOB}),
            (
                "list_jobs",
                {"status": "failed", "knowledge_base": "kb", "limit": 1, "cursor": "c"},
                "jobs",
                {"status": "failed", "knowledge_base": "kb", "limit": 1, "cursor": "c"},
            ),
            (
                "list_documents",
                {"source_prefix": "https://", "limit": 100},
                "documents",
                {"knowledge_base": "default", "source_prefix": "https://", "limit": 100, "cursor": None},
            ),
            (
                "get_document",
                {"document_id": str(DOCUMENT), "offset": 5, "max_tokens": 64},
                "document",
                {"document_id": DOCUMENT, "knowledge_base": "default", "offset": 5, "max_tokens": 64},
            ),
            ("delete_document", MINIMAL["delete_document"], "delete_document", {"document_id": DOCUMENT, "knowledge_base": "default"}),
            ("list_knowledge_bases", {}, "knowledge_bases", {}),
            ("create_upload", {"filename": "a.pdf", "mime": "application/pdf"}, "create_upload", {"request": UploadCreate(filename="a.pdf", mime="application/pdf")}),
        ],
    )  # fmt: skip
    async def test_arguments_reach_the_port_for_the_principal_who_asks(
        self, client: Client[Any], shield: StandIn, *, tool: str, arguments: dict[str, Any], method: str, expected: dict[str, Any]
    ) -> None:
        result = await call(client, tool, **arguments)
        assert not result.is_error, result.structured_content
        [(called, passed)] = shield.calls
        assert (called, passed["who"]) == (method, LOCAL)
        assert expected.items() <= passed.items()

    @pytest.mark.parametrize("tool", MINIMAL)
    async def test_every_tool_answers_with_typed_structured_content(self, client: Client[Any], tool: str) -> None:
        result = await call(client, tool, **MINIMAL[tool])
        assert not result.is_error
        assert result.structured_content is not None
        assert json.loads(getattr(result.content[0], "text", "")) == result.structured_content

    @pytest.mark.parametrize("tool", ["crawl_web", "ingest_doc", "delete_document"])
    async def test_long_tools_return_a_job_to_poll(self, client: Client[Any], tool: str) -> None:
        result = await call(client, tool, **MINIMAL[tool])
        assert result.structured_content == {
            "job_id": str(JOB),
            "status": "pending",
            "status_url": f"/jobs/{JOB}",
            "poll_after_seconds": 1.5,
            "knowledge_base": "default",
        }
        assert set(result.structured_content) == set(JobAccepted.model_fields)

    async def test_a_path_is_only_for_callers_on_this_machine(self, client: Client[Any], shield: StandIn) -> None:
        assert error_of(await call(client, "ingest_doc", path="notes.md"))["code"] == "document.path_refused"
        assert shield.calls == []
        local = create_mcp(shield, Metrics(), load(), principal=lambda: LOCAL, local_caller=True)
        async with Client(local) as neighbour:
            assert not (await call(neighbour, "ingest_doc", path="notes.md")).is_error
        assert shield.calls[0][1]["local_caller"] is True

    async def test_a_callers_trace_goes_on_in_the_job(self, client: Client[Any], shield: StandIn) -> None:
        await client.call_tool("crawl_web", MINIMAL["crawl_web"], meta={"traceparent": TRACEPARENT})
        assert shield.calls[0][1]["traceparent"].split("-")[1] == TRACEPARENT.split("-")[1]

    async def test_a_waiting_poll_answers_before_the_tools_own_limit(self, shield: StandIn) -> None:
        mcp = create_mcp(shield, Metrics(), load(query={"timeout": 10}), principal=lambda: LOCAL)
        async with Client(mcp) as client:
            await call(client, "get_job_status", job_id=str(JOB), wait_seconds=45)
        assert shield.calls[0][1]["wait"] == pytest.approx(9)


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
