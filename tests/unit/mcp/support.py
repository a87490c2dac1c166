"""What the tests of the tools share: how to call them, and how to read what comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastmcp import Client
from fastmcp.client.client import CallToolResult
from prometheus_client.parser import text_string_to_metric_families

from shield.telemetry.metrics import Metrics
from tests.unit.stand_in import DOCUMENT, JOB

SNAPSHOT = Path(__file__).with_name("mcp_tools.json")
"""The tools as committed: parameters and results."""

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
