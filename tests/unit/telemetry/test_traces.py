"""A caller's trace is carried on, with or without an SDK."""

from __future__ import annotations

import pytest
from opentelemetry.trace import INVALID_SPAN

from shield.telemetry.traces import span_from, trace_id, traceparent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_outside_of_any_trace_there_is_no_traceparent() -> None:
    assert traceparent() is None
    assert trace_id() is None


def test_a_block_continues_the_trace_it_is_given_and_leaves_it_at_the_end() -> None:
    with span_from(PARENT, "job"):
        assert trace_id() == PARENT.split("-")[1]
        current = traceparent()
        assert current is not None
        with span_from(current, "step"):
            assert trace_id() == PARENT.split("-")[1]
    assert trace_id() is None


@pytest.mark.parametrize("parent", [None, "", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-00", "x" * 10_000])
def test_an_invalid_parent_means_no_trace(parent: str | None) -> None:
    with span_from(parent, "job") as span:
        assert traceparent() is None
        assert span.get_span_context() == INVALID_SPAN.get_span_context()


def test_an_error_passes_through_and_leaves_the_trace() -> None:
    with pytest.raises(ValueError, match="boom"), span_from(PARENT, "job"):
        raise ValueError("boom")
    assert trace_id() is None
