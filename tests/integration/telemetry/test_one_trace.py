"""One trace spans a tool call, the job it makes, and the worker that runs it; no span holds what was asked or read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from fastmcp import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from tests.integration.conftest import Running, ended

SECRET = "The quokka of Rottnest opens the valve at seventeen bar."


class Recorder(SpanProcessor):
    """Keeps ended spans while it is asked to. It outlives each test: a provider cannot lose a processor, and one that was shut down
    warns of every later span.
    """

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] | None = None

    def record(self) -> None:
        """Begin anew."""
        self._spans = []

    def stop(self) -> None:
        """Keep nothing any more."""
        self._spans = None

    def on_end(self, span: ReadableSpan) -> None:
        """Keep the span, if it is wanted."""
        if self._spans is not None:
            self._spans.append(span)

    def get_finished_spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that ended since `record`."""
        return tuple(self._spans or ())


@cache
def recorder() -> Recorder:
    """The recorder of this process: OpenTelemetry lets a process set its provider once."""
    provider, recorder = TracerProvider(), Recorder()
    provider.add_span_processor(recorder)
    trace.set_tracer_provider(provider)
    return recorder


@pytest.fixture
def spans() -> Iterator[Recorder]:
    """All spans that end in this process during a test."""
    recorder().record()
    yield recorder()
    recorder().stop()


def family(spans: tuple[ReadableSpan, ...], name: str) -> list[ReadableSpan]:
    """All spans of the trace that the first span of this name belongs to."""
    root = next(span for span in spans if span.name == name)
    assert root.context is not None
    return [span for span in spans if span.context is not None and span.context.trace_id == root.context.trace_id]


async def test_tool_call_job_and_worker_are_one_trace(running: Running, spans: Recorder) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        accepted = await client.call_tool("ingest_doc", {"text": SECRET, "filename": "a.md"})
        job = await ended(client, accepted.structured_content["job_id"])
        assert job["status"] == "completed"
        await client.call_tool("qdrant_find", {"query": "Where does the quokka live?"})
    found = spans.get_finished_spans()
    names = {span.name for span in family(found, "tools/call ingest_doc")}
    assert {"POST /mcp", "tools/call ingest_doc", "job ingest", "stage acquire", "stage convert", "stage index"} <= names, names
    stages = [span for span in found if span.name == "stage index"]
    jobs = {span.context.span_id for span in found if span.name == "job ingest" and span.context}
    assert stages
    assert all(span.parent is not None and span.parent.span_id in jobs for span in stages)


async def test_a_callers_own_trace_is_carried_on(running: Running, spans: Recorder) -> None:
    import httpx

    caller = "0af7651916cd43dd8448eb211c80319c"
    async with running() as app, httpx.AsyncClient(base_url=app.info.url) as client:
        answer = await client.post(
            "/lightrag/ingest-async",
            json={"spec": {"type": "document", "text": SECRET, "filename": "b.md"}},
            headers={"traceparent": f"00-{caller}-b7ad6b7169203331-01"},
        )
        assert answer.status_code == 202
        await client.get(answer.headers["Location"], params={"wait": 30}, timeout=40)
    ours = [span for span in spans.get_finished_spans() if span.context and format(span.context.trace_id, "032x") == caller]
    assert {"POST /lightrag/ingest-async", "job ingest"} <= {span.name for span in ours}


async def test_no_span_holds_text_or_questions(running: Running, spans: Recorder) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        await client.call_tool("qdrant_store", {"text": SECRET})
        await client.call_tool("qdrant_find", {"query": "Where does the quokka live?"})
        await client.call_tool("qdrant_find", {"query": 17}, raise_on_error=False)
    told = " ".join(span.to_json() for span in spans.get_finished_spans())
    assert "tools/call qdrant_find" in told
    assert "quokka" not in told
