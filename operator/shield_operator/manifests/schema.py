"""From pydantic's JSON schema to the structural OpenAPI v3 schema that a CustomResourceDefinition wants.

References are written out, `anyOf` with null becomes an optional field, defaults and titles go (a default in a CRD would be written into the
user's spec, and fight with server-side apply), integers get their width. Rules, list types and bounds are in the models already.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_ORDER = (
    "description", "type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "minProperties",
    "maxProperties", "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations",
    "required", "properties", "items", "additionalProperties",
)  # fmt: skip
"""All keywords that our schemas may hold, in the order in which they are written."""
_DROPPED = frozenset({"title", "default", "$defs", "examples"})
_INT32 = 2**31 - 1


class NotStructural(Exception):
    """A model says something that a CRD's schema cannot."""


def structural(schema: Schema) -> Schema:
    """The schema of a pydantic model, as a CRD can hold it.

    Raises:
        NotStructural: a keyword is unknown, or a union is not one with null.
    """
    return _convert(schema, schema.get("$defs", {}), "$")


def _convert(schema: Schema, definitions: dict[str, Schema], where: str) -> Schema:
    node = _resolved(schema, definitions, where)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if node.get("x-kubernetes-int-or-string"):
        node.pop("anyOf", None)
        node.pop("type", None)
    if node.get("type") == "integer":
        node["format"] = "int32" if node.get("maximum", _INT32 + 1) <= _INT32 else "int64"
    if node.get("additionalProperties") is False:
        del node["additionalProperties"]  # Kubernetes prunes what is unknown, or refuses it under strict validation
    if unknown := set(node) - set(_ORDER):
        raise NotStructural(f"{where}: {', '.join(sorted(unknown))}")
    if "properties" in node:
        node["properties"] = {name: _convert(child, definitions, f"{where}.{name}") for name, child in node["properties"].items()}
    if "items" in node:
        node["items"] = _convert(node["items"], definitions, f"{where}[]")
    if "additionalProperties" in node:
        node["additionalProperties"] = _convert(node["additionalProperties"], definitions, f"{where}{{}}")
    return {key: node[key] for key in _ORDER if key in node}


def _resolved(schema: Schema, definitions: dict[str, Schema], where: str) -> Schema:
    """One level without references, unions with null, and what is dropped; what stands beside a reference or a union wins."""
    node = {key: value for key, value in schema.items() if key not in _DROPPED}
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        options = [option for option in node.pop("anyOf") if option.get("type") != "null"]
        if len(options) != 1:
            raise NotStructural(f"{where}: a union of {len(options)} types")
        return _merged(_resolved(options[0], definitions, where), node)
    if "$ref" in node:
        target = definitions[node.pop("$ref").rpartition("/")[2]]
        return _merged(_resolved(target, definitions, where), node)
    return node


def _merged(below: Schema, above: Schema) -> Schema:
    rules = [*below.get("x-kubernetes-validations", ()), *above.get("x-kubernetes-validations", ())]
    return {**below, **above, **({"x-kubernetes-validations": rules} if rules else {})}
