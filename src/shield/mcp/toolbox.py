"""What the tool families are built with: the port, who is asking, and one way to declare a tool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastmcp import FastMCP
from fastmcp.tools import Tool
from fastmcp.utilities.json_schema import dereference_refs
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from shield.auth import Principal
from shield.service.models import JobAccepted, JobView
from shield.service.port import Shield
from shield.service.validation import invalid_request

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound=BaseModel)


class Toolbox:
    """Registers tools on a server and gives them what they need."""

    def __init__(self, mcp: FastMCP[Any], shield: Shield, principal: Callable[[], Principal], *, local_caller: bool, limit: float) -> None:
        self._mcp = mcp
        self.shield = shield
        self.principal = principal
        """Who asks, in the call that runs now."""
        self.local_caller = local_caller
        """Whether callers share this machine and may name its files."""
        self.limit = limit
        """Seconds a call may take."""
        self.names: list[str] = []
        self.looking_up: list[str] = []
        """Tools whose answers say whether anything was found."""
        self._inputs: dict[str, dict[str, Any]] = {}

    def tool(
        self, *, read_only: bool = False, destructive: bool = False, idempotent: bool = True, open_world: bool = False
    ) -> Callable[[F], F]:
        """Declare a tool; its docstring is what an agent reads, its annotations say what to expect of a call."""
        hints = ToolAnnotations(
            read_only_hint=read_only, destructive_hint=destructive, idempotent_hint=idempotent, open_world_hint=open_world
        )

        def declare(fn: F) -> F:
            tool = _self_contained(Tool.from_function(fn, annotations=hints))
            self._mcp.add_tool(tool)
            self._inputs[tool.name] = tool.parameters
            self.names.append(fn.__name__)
            if "found" in (tool.output_schema or {}).get("properties", {}):
                self.looking_up.append(fn.__name__)
            return fn

        return declare

    def input_schema(self, tool: str) -> dict[str, Any] | None:
        """What the tool takes, as a JSON schema; None: no such tool."""
        return self._inputs.get(tool)


def _self_contained(tool: Tool) -> Tool:
    """The tool with schemas that refer to nothing: some clients cannot follow references.

    FastMCP does the same, but anew for each listing.
    """
    output = tool.output_schema
    return tool.model_copy(
        update={
            "parameters": dereference_refs(tool.parameters),
            "output_schema": None if output is None else dereference_refs(output),
        }
    )


def like(model: type[BaseModel], field: str, description: str | None = None) -> FieldInfo:
    """The limits and description of a model's field, to annotate the parameter that goes into it."""
    info = model.model_fields[field]
    copy: FieldInfo = Field(description=description or info.description)
    copy.metadata = list(info.metadata)
    return copy


def build(model: type[M], **fields: Any) -> M:
    """A request from a tool's arguments; None means: the field's default.

    Raises:
        InvalidRequest: the arguments do not fit together; the message names them.
    """
    try:
        return model(**{name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise invalid_request(error) from error


def accepted(job: JobView) -> JobAccepted:
    """What a long tool returns at once."""
    return JobAccepted(**{name: getattr(job, name) for name in JobAccepted.model_fields})
