"""The one middleware: every tool call is counted, limited in time, and fails in one form.

That form is `isError` with `structuredContent {code, message, advice, retryable, retry_after?, details?}` and the same as JSON text,
whatever went wrong: an argument of the wrong type, an unknown tool, an error of the port, the time limit, or a bug. A bug tells
the caller a correlation id and nothing else; the log line of that id has the rest. Neither holds arguments or retrieved text: the
log and the spans never see them (FastMCP's own spans, which quote invalid arguments, are left out below this point).

A call whose client went away is counted as started only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from fastmcp.exceptions import NotFoundError
from fastmcp.exceptions import ValidationError as InvalidArguments
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.telemetry import suppress_fastmcp_telemetry
from fastmcp.tools.base import ToolResult
from pydantic import ValidationError
from pydantic_core import to_json

from shield.errors import Fault, InternalError, QueryTimeout, ShieldError, UnknownTool
from shield.service.validation import invalid_request
from shield.telemetry.metrics import Metrics
from shield.telemetry.traces import span_from

if TYPE_CHECKING:
    from mcp_types import CallToolRequestParams

_LOG = logging.getLogger(__name__)
_LEVELS = {Fault.CALLER: logging.INFO, Fault.DEPENDENCY: logging.WARNING, Fault.SERVER: logging.ERROR}


class Boundary(Middleware):
    """Stands between the protocol and the tools."""

    def __init__(self, metrics: Metrics, tools: frozenset[str], limit: float) -> None:
        """`limit`: seconds a call may take."""
        self._metrics = metrics
        self._tools = tools
        self._limit = limit

    async def on_call_tool(
        self, context: MiddlewareContext[CallToolRequestParams], call_next: CallNext[CallToolRequestParams, ToolResult]
    ) -> ToolResult:
        """Count the call, run it within its limit, and give its failure the common form."""
        tool = context.message.name if context.message.name in self._tools else "unknown"
        self._metrics.tool_started(tool)
        start = time.perf_counter()
        failure: ShieldError | None = None
        try:
            with suppress_fastmcp_telemetry(), span_from(None, f"tools/call {tool}", {"gen_ai.tool.name": tool}):
                async with asyncio.timeout(self._limit):
                    result = await call_next(context)
        except Exception as error:  # noqa: BLE001  the request's boundary: whatever it is, the caller gets the common form
            failure = self._explain(tool, error)
            result = _failed(failure)
        took = time.perf_counter() - start
        self._metrics.tool_ended(tool, took, failure)
        if failure is None and isinstance(found := (result.structured_content or {}).get("found"), bool):
            self._metrics.tool_answered(tool, found)
        self._log(tool, took, failure)
        return result

    def _explain(self, tool: str, error: Exception) -> ShieldError:
        """The typed error behind what came out of FastMCP."""
        cause = error.__cause__
        if isinstance(error, ShieldError):
            return error
        if isinstance(cause, ShieldError):
            return cause
        if isinstance(error, InvalidArguments) and isinstance(cause, ValidationError):
            return invalid_request(cause)
        if isinstance(error, NotFoundError):
            return UnknownTool()
        if isinstance(error, TimeoutError):  # ours: one from inside arrives as a ToolError
            return QueryTimeout(f"The tool took longer than {self._limit:g} seconds and was stopped.")
        correlation_id = uuid4().hex
        _LOG.error("tool_crashed", exc_info=cause or error, extra={"tool": tool, "correlation_id": correlation_id})
        return InternalError(correlation_id=correlation_id)

    def _log(self, tool: str, took: float, failure: ShieldError | None) -> None:
        level = _LEVELS[failure.fault] if failure else logging.DEBUG
        code = failure.code if failure else "ok"
        _LOG.log(level, "tool_call", extra={"tool": tool, "code": code, "seconds": round(took, 4)})


def _failed(error: ShieldError) -> ToolResult:
    body = error.public()
    return ToolResult(content=to_json(body).decode(), structured_content=body, is_error=True)
