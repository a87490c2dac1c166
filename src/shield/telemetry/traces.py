"""Traces, by the OpenTelemetry API alone: without an SDK nothing is recorded, but a caller's trace is still carried on.

`traceparent` rides in the job's row, so that one trace spans tool call, job and worker. Spans never record an exception's message,
which may quote a document; they hold its type.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_W3C = TraceContextTextMapPropagator()


def traceparent() -> str | None:
    """The current position in a trace as W3C `traceparent`, or None outside of any."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


def trace_id() -> str | None:
    """The current trace's id, 32 hex digits, or None outside of any."""
    current = trace.get_current_span().get_span_context()
    return format(current.trace_id, "032x") if current.is_valid else None


class StageSpans:
    """Spans that follow one another below the current one: each begins where the last one ended.

    `observed` is told each stage that ended and its seconds, for the metrics.
    """

    def __init__(self, observed: Callable[[str, float], None] = lambda _stage, _seconds: None) -> None:
        self._observed = observed
        self._open: Span | None = None
        self._stage = ""
        self._began = 0.0

    def begin(self, stage: str) -> None:
        """End the open span, if any, and begin the next one."""
        self.end()
        self._open = trace.get_tracer("shield").start_span(f"stage {stage}")
        self._stage, self._began = stage, time.monotonic()

    def end(self) -> None:
        """End the open span, if any."""
        if self._open is not None:
            self._open.end()
            self._open = None
            self._observed(self._stage, time.monotonic() - self._began)


@contextmanager
def span_from(
    parent: str | None,
    name: str,
    attributes: Mapping[str, str | int | float | bool] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> Iterator[Span]:
    """Run a block as span `name` that continues the trace of `parent`, a `traceparent` (None or invalid: the current one)."""
    token = context.attach(_W3C.extract({"traceparent": parent}) if parent else context.get_current())
    try:
        tracer = trace.get_tracer("shield")
        with tracer.start_as_current_span(
            name, kind=kind, attributes=dict(attributes or {}), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:  # passes on: a span that was left by any of them, cancellation too, has failed
                span.set_status(StatusCode.ERROR, type(error).__name__)
                raise
    finally:
        context.detach(token)
