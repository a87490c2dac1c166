"""A linter of CustomResourceDefinitions: what kube-api-linter asks of Go types, asked of the YAML.

Every rule is a function that yields the places that break it; `lint` runs them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Schema = dict[str, Any]
_DURATION = re.compile(r"(Timeout|Duration|Period|Delay|Deadline|Interval|TTL|Ttl|Jitter|Age)$")
_UNSTRUCTURED = {
    "$ref",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
}
_POSITION = re.compile(r"\[-?\d*:?-?\d*\]")
_OWN = {"apiVersion", "kind", "metadata"}


class Node(NamedTuple):
    """A place in a schema."""

    path: str
    name: str
    """The field's name; empty for items of a list and values of a map."""
    schema: Schema


class Finding(NamedTuple):
    """A broken rule."""

    rule: str
    path: str


def lint(crd: Schema) -> list[Finding]:
    """Everything that is wrong with a CRD."""
    return [Finding(rule.__name__, path) for rule in RULES for version in crd["spec"]["versions"] for path in rule(version)]


def nodes(version: Schema) -> Iterator[Node]:
    """Every place below spec and status."""
    root = version["schema"]["openAPIV3Schema"]
    for name in root["properties"]:
        if name not in _OWN:
            yield from _walk(Node(name, name, root["properties"][name]))


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for name, child in node.schema.get("properties", {}).items():
        yield from _walk(Node(f"{node.path}.{name}", name, child))
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.schema.get(key), dict):
            yield from _walk(Node(node.path + mark, "", node.schema[key]))


def _int_or_string(schema: Schema) -> bool:
    return bool(schema.get("x-kubernetes-int-or-string"))


def no_phase(version: Schema) -> Iterator[str]:
    """A phase hides what conditions say."""
    return (node.path for node in nodes(version) if node.name == "phase")


def conditions_first_in_status(version: Schema) -> Iterator[str]:
    """Conditions come first, merged by type."""
    properties = version["schema"]["openAPIV3Schema"]["properties"].get("status", {}).get("properties", {})
    conditions = properties.get("conditions", {})
    if next(iter(properties), "") != "conditions" or conditions.get("x-kubernetes-list-map-keys") != ["type"]:
        yield "status.conditions"


def bounded(version: Schema) -> Iterator[str]:
    """Strings, lists, maps and integers have a bound, which the cost limit of CEL rules needs, too."""
    for node in nodes(version):
        schema = node.schema
        match schema.get("type"):
            case "string" if not {"maxLength", "enum", "format"} & set(schema):
                yield node.path
            case "array" if "maxItems" not in schema:
                yield node.path
            case "object" if "additionalProperties" in schema and "maxProperties" not in schema:
                yield node.path
            case "integer" if "minimum" not in schema or schema.get("maximum", 2**63) > 2**53:  # the API server reads bounds as floats
                yield node.path
            case None if _int_or_string(schema) and "maxLength" not in schema:
                yield node.path
            case _:
                pass


def durations_are_seconds(version: Schema) -> Iterator[str]:
    """A duration is an integer named ...Seconds."""
    for node in nodes(version):
        if _DURATION.search(node.name) or (node.name.endswith("Seconds") and node.schema.get("type") != "integer"):
            yield node.path


def times_are_named_so(version: Schema) -> Iterator[str]:
    """A point in time is a date-time named ...Time, and nothing else is."""
    for node in nodes(version):
        if node.name and node.name.endswith("Time") != (node.schema.get("format") == "date-time"):
            yield node.path


def lists_say_how_they_merge(version: Schema) -> Iterator[str]:
    """Every list has a type; the keys of a map are required in its items."""
    for node in nodes(version):
        if node.schema.get("type") != "array":
            continue
        keys, items = node.schema.get("x-kubernetes-list-map-keys", []), node.schema.get("items", {})
        kind = node.schema.get("x-kubernetes-list-type")
        if kind not in {"atomic", "set", "map"} or (kind == "map") != bool(keys) or not set(keys) <= set(items.get("required", ())):
            yield node.path


def described_by_name(version: Schema) -> Iterator[str]:
    """A description starts with the field's name, as `kubectl explain` shows it far from the field."""
    return (
        node.path
        for node in nodes(version)
        if node.name and not re.match(rf"{re.escape(node.name)}\b.+[.]$", node.schema.get("description", ""), re.DOTALL)
    )


def no_defaults(version: Schema) -> Iterator[str]:
    """A default would be written into the user's spec, and required with a default is a contradiction."""
    return (node.path for node in nodes(version) if "default" in node.schema)


def structural(version: Schema) -> Iterator[str]:
    """Every place has one type, spelled out."""
    for node in nodes(version):
        if _UNSTRUCTURED & set(node.schema) or not (node.schema.get("type") or _int_or_string(node.schema)):
            yield node.path


def required_fields_exist(version: Schema) -> Iterator[str]:
    """What is required is a field."""
    return (node.path for node in nodes(version) if not set(node.schema.get("required", ())) <= set(node.schema.get("properties", {})))


def names_are_camel_case(version: Schema) -> Iterator[str]:
    """Fields are named like Kubernetes'."""
    return (node.path for node in nodes(version) if node.name and not re.fullmatch(r"[a-z][a-z0-9]*([A-Z][a-z0-9]*)*", node.name))


def rules_have_messages(version: Schema) -> Iterator[str]:
    """A refusal says why, in words."""
    root = Node("", "", version["schema"]["openAPIV3Schema"])
    for node in (root, *nodes(version)):
        if not all(rule.get("message") for rule in node.schema.get("x-kubernetes-validations", ())):
            yield node.path


def status_is_a_subresource(version: Schema) -> Iterator[str]:
    """Users write the spec, the operator the status, and neither the other."""
    if version.get("subresources", {}).get("status") != {}:
        yield "status"


def columns_find_conditions_by_type(version: Schema) -> Iterator[str]:
    """No column takes the last or the first condition, and age is shown."""
    columns = version.get("additionalPrinterColumns", [])
    for column in columns:
        if _POSITION.search(column["jsonPath"]):
            yield column["name"]
    if not any(column["jsonPath"] == ".metadata.creationTimestamp" for column in columns):
        yield "Age"


RULES: tuple[Callable[[Schema], Iterator[str]], ...] = (
    no_phase,
    conditions_first_in_status,
    bounded,
    durations_are_seconds,
    times_are_named_so,
    lists_say_how_they_merge,
    described_by_name,
    no_defaults,
    structural,
    required_fields_exist,
    names_are_camel_case,
    rules_have_messages,
    status_is_a_subresource,
    columns_find_conditions_by_type,
)
