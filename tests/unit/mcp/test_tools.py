"""The tools as an MCP client sees them, in both protocol eras: what they take, and what they pass on."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from fastmcp import Client, FastMCP
from fastmcp.utilities.json_schema import dereference_refs
from pydantic import BaseModel

from shield.auth import LOCAL
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
from tests.unit.mcp.support import MINIMAL, SNAPSHOT, TRACEPARENT, call, error_of
from tests.unit.stand_in import DOCUMENT, JOB, StandIn

SIX = {"crawl_web", "ingest_doc", "qdrant_find", "qdrant_store", "lightrag_query", "get_job_status"}


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
            "if this is meant: UPDATE_SNAPSHOTS=1 pytest tests/unit/mcp/test_tools.py"
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
