"""Logs: one line an event, on stderr only (stdout belongs to results and to the stdio transport), JSON or readable.

What is bound by `bound(job_id=...)` and the current trace's id stand in every line below. Libraries speak from WARNING on, through
the same renderer. Of an exception only the type, the first line of its message and its frames are written: the further lines of
pydantic's, SQLAlchemy's and PostgreSQL's messages quote values. At level `debug` messages are whole.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from structlog.contextvars import bound_contextvars as bound
from structlog.typing import EventDict, Processor, WrappedLogger

from shield.telemetry.traces import trace_id

__all__ = ["bound", "configure"]

_MESSAGE_LENGTH = 200


def configure(
    format: Literal["auto", "json", "console"] = "auto",  # noqa: A002  as the setting is called
    level: Literal["debug", "info", "warning", "error"] = "info",
    stream: TextIO | None = None,
) -> None:
    """Set up logging of this process; call it once, first thing in an entry point. `stream` is stderr unless a test says otherwise."""
    out = stream or sys.stderr
    whole = level == "debug"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_id,
        _ExceptionText(whole),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    json = format == "json" or (format == "auto" and not out.isatty())
    renderer: Processor = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=out.isatty())
    handler = logging.StreamHandler(stream) if stream else _CurrentStderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("shield").setLevel(level.upper())
    _tame_fastmcp()


class _CurrentStderr(logging.Handler):
    """Writes to whatever standard error is now: a live progress bar takes it over, and prints the lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001  as every handler of the standard library: a log line must not end what it reports on
            self.handleError(record)


def _tame_fastmcp() -> None:
    """FastMCP installs a handler of its own when it is imported; ours is enough, whichever comes first."""
    os.environ["FASTMCP_LOG_ENABLED"] = "false"
    fastmcp = logging.getLogger("fastmcp")
    fastmcp.handlers.clear()
    fastmcp.propagate = True
    fastmcp.setLevel(logging.NOTSET)


def _add_trace_id(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    if current := trace_id():
        event.setdefault("trace_id", current)
    return event


class _ExceptionText:
    """Turns `exc_info` into text without locals, and (unless `whole`) without the lines that may quote values."""

    def __init__(self, whole: bool) -> None:
        self._whole = whole

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> Mapping[str, Any]:
        info = event.pop("exc_info", None)
        error = info[1] if isinstance(info, tuple) else info if isinstance(info, BaseException) else sys.exc_info()[1] if info else None
        if error is not None:
            event["exception"] = "".join(traceback.format_exception(error)).rstrip() if self._whole else _chain(error)
        return event


def _chain(error: BaseException) -> str:
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        message = (str(current).splitlines() or [""])[0][:_MESSAGE_LENGTH]
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"{frames}{type(current).__module__}.{type(current).__qualname__}: {message}")
        parts.extend(f"  | {type(sub).__qualname__}" for sub in getattr(current, "exceptions", ()))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\ncaused by:\n".join(parts)
