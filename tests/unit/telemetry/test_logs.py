"""One line an event on the given stream, with its context, and no values out of exceptions."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import BaseModel, ValidationError

from shield.telemetry.logs import bound, configure
from shield.telemetry.traces import span_from

SECRET = "the patient's name is Ada"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root, ours, fastmcp = logging.getLogger(), logging.getLogger("shield"), logging.getLogger("fastmcp")
    before = (root.handlers[:], root.level, ours.level, fastmcp.handlers[:], fastmcp.propagate, fastmcp.level)
    yield
    root.handlers[:], fastmcp.handlers[:] = before[0], before[3]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    fastmcp.propagate = before[4]
    fastmcp.setLevel(before[5])
    structlog.reset_defaults()


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_what_is_bound_and_the_trace(out: io.StringIO) -> None:
    configure("json", "info", out)
    with bound(job_id="j1"), span_from(TRACEPARENT, "test"):
        structlog.get_logger("shield.jobs").info("claimed", fence=3)
    structlog.get_logger("shield.jobs").info("later")
    first, second = lines(out)
    assert first["event"] == "claimed"
    assert first["fence"] == 3
    assert first["job_id"] == "j1"
    assert first["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert first["level"] == "info"
    assert first["logger"] == "shield.jobs"
    assert "job_id" not in second
    assert "trace_id" not in second


def test_libraries_speak_from_warning_on_through_the_same_renderer(out: io.StringIO) -> None:
    configure("json", "debug", out)
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("trouble with %s", "x")
    logging.getLogger("shield.jobs").debug("ours")
    assert [line["event"] for line in lines(out)] == ["trouble with x", "ours"]


def test_the_level_holds_for_ours(out: io.StringIO) -> None:
    configure("json", "warning", out)
    structlog.get_logger("shield.jobs").info("not this")
    structlog.get_logger("shield.jobs").warning("this")
    assert [line["event"] for line in lines(out)] == ["this"]


def test_nothing_is_written_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    configure("auto", "info")
    structlog.get_logger("shield.jobs").info("claimed")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "claimed" in captured.err


def test_the_console_form_is_readable(out: io.StringIO) -> None:
    configure("console", "info", out)
    structlog.get_logger("shield.jobs").info("claimed", fence=3)
    assert "claimed" in out.getvalue()
    assert "fence=3" in out.getvalue()


class Note(BaseModel):
    text: int


def _fail() -> None:
    confidential = SECRET
    try:
        Note.model_validate({"text": confidential})
    except ValidationError as error:
        raise RuntimeError(f"could not store\nDETAIL: {confidential}") from error


@pytest.mark.parametrize("format_", ["json", "console"])
def test_an_exception_shows_where_and_what_but_no_values(out: io.StringIO, format_: Any) -> None:
    configure(format_, "info", out)
    try:
        _fail()
    except RuntimeError:
        structlog.get_logger("shield.jobs").exception("failed")
        logging.getLogger("library").exception("failed too")
    text = out.getvalue()
    assert text.count("RuntimeError: could not store") == 2
    assert text.count("ValidationError: 1 validation error for Note") == 2
    assert "in _fail" in text
    assert SECRET not in text


def test_at_debug_exceptions_are_whole(out: io.StringIO) -> None:
    configure("json", "debug", out)
    try:
        _fail()
    except RuntimeError:
        structlog.get_logger("shield.jobs").exception("failed")
    assert SECRET in out.getvalue()


def test_fastmcp_logs_through_ours_even_when_it_is_imported_later(out: io.StringIO) -> None:
    configure("json", "info", out)
    from fastmcp.utilities.logging import get_logger

    get_logger("fastmcp.anything").warning("heard")
    assert [line["event"] for line in lines(out)] == ["heard"]
    assert logging.getLogger("fastmcp").handlers == []
