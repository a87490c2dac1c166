"""A chart's values.yaml as its documentation: every value has its default, one sentence, and what its schema narrows.

    # -- Replicas; not used with autoscaling.
    # @schema {minimum: 0}
    replicas: 1

`# --` begins the sentence (further comment lines continue it), `# @schema` adds JSON Schema in YAML. A type is that of the default. A mapping whose
members are described is a group and is closed: an unknown key in it is a mistake, told before anything is installed. A mapping that is described itself
is the user's (labels, resources) and stays open, and so do `global` and, for the use as a sub-chart, `enabled`. A value without a sentence is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
_QUANTITIES = {"cpu", "memory", "ephemeralStorage", "size"}


class UndocumentedValue(Exception):
    """A value has no description."""


@dataclass(frozen=True)
class Value:
    """A value, or a group of values."""

    path: tuple[str, ...]
    default: Any
    description: str
    narrowed: dict[str, Any]
    members: tuple[Value, ...] = field(default=())
    """Of a group; a group has no description of its own."""

    def leaves(self) -> Iterator[Value]:
        """The values in it, in their order."""
        if not self.members:
            yield self
        for member in self.members:
            yield from member.leaves()


def read_values(text: str) -> tuple[Value, ...]:
    """The values of a values.yaml.

    Raises:
        UndocumentedValue: one has no description.
    """
    node = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise UndocumentedValue("values.yaml is no mapping")
    return tuple(_members(node, text.splitlines(), ()))


def _members(node: yaml.MappingNode, lines: list[str], above: tuple[str, ...]) -> Iterator[Value]:
    for key, content in node.value:
        path = (*above, str(key.value))
        description, narrowed = _comment(lines, key.start_mark.line)
        default = _plain(content)
        if description:
            yield Value(path, default, description, narrowed)
        elif isinstance(content, yaml.MappingNode) and content.value:
            yield Value(path, default, "", {}, tuple(_members(content, lines, path)))
        else:
            raise UndocumentedValue(f"{'.'.join(path)} has no description: put `# -- …` above it")


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """Description and schema that stand right above a line."""
    block: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        block.insert(0, lines[line].lstrip().removeprefix("#").strip())
    begins = next((number for number, text in enumerate(block) if text.startswith("-- ")), None)
    if begins is None:
        return "", {}
    narrowed: dict[str, Any] = {}
    said = []
    for text in block[begins:]:
        if text.startswith("@schema "):
            narrowed |= yaml.safe_load(text.removeprefix("@schema "))
        else:
            said.append(text.removeprefix("-- "))
    return " ".join(said), narrowed


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def schema_of(values: tuple[Value, ...]) -> dict[str, Any]:
    """The JSON Schema of all values."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": "Generated from values.yaml by tools/generate_chart.py; do not edit.",
        **_group(values),
        "properties": {**_group(values)["properties"], "enabled": {"description": "For umbrella charts: their condition for this one."}},
    }


def _group(values: tuple[Value, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {value.path[-1]: _group(value.members) if value.members else _leaf(value) for value in values},
    }


def _leaf(value: Value) -> dict[str, Any]:
    kind: Any = _TYPES[type(value.default)]
    if value.path[-1] in _QUANTITIES:
        kind = ["string", "number"]
    elif kind == "integer" and "minimum" not in value.narrowed and value.path[-1] in {"port", "proxyPort"}:
        return {"description": value.description, "type": kind, "minimum": 1, "maximum": 65535}
    elif kind == "integer" and value.narrowed == {} and value.path[-1] == "maxUnavailable":
        kind = ["integer", "string"]
    return {"description": value.description, "type": kind, **value.narrowed}


def table_of(values: tuple[Value, ...]) -> str:
    """VALUES.md: a table for each part of the chart."""
    parts = [
        "<!-- Generated from values.yaml by tools/generate_chart.py; do not edit. -->",
        "# Values",
        "",
        "Installing, production and upgrades: [docs/DEPLOYMENT.md](../../docs/DEPLOYMENT.md). An unknown value is refused.",
    ]
    single = tuple(value for value in values if not value.members)
    for title, shown in (("All parts", single), *((f"`{value.path[0]}`", tuple(value.leaves())) for value in values if value.members)):
        parts += ["", f"## {title}", "", "| value | default | meaning |", "|---|---|---|"]
        parts += [f"| `{'.'.join(one.path)}` | {_shown(one.default)} | {_meaning(one)} |" for one in shown]
    return "\n".join(parts) + "\n"


def _shown(default: Any) -> str:
    if default in ("", None, [], {}):
        return "–"  # noqa: RUF001  # as the other tables have it
    return f"`{default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)}`"


def _meaning(value: Value) -> str:
    choices = value.narrowed.get("enum")
    return (value.description + (f" One of {', '.join(f'`{one}`' for one in choices)}." if choices else "")).replace("|", "\\|")
