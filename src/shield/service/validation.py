"""From pydantic's validation errors to ours: names the field and the rule, never the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from shield.errors import InvalidRequest

_TAGS = {"crawl", "document"}  # pydantic names the chosen kind of a spec, which is no field
_WHERE = {"body", "query", "path", "header"}  # FastAPI names the part of the request first
_SHOWN, _LENGTH = 10, 200


def invalid_request(error: ValidationError) -> InvalidRequest:
    """The same error on every surface, with the first few fields that are wrong."""
    items = error.errors(include_url=False, include_input=False)
    return invalid_fields([{**item, "loc": ("body", *item["loc"])} for item in items])  # a model's own field may be called `query`


def invalid_fields(items: Sequence[Mapping[str, Any]]) -> InvalidRequest:
    """The same, from the error items of pydantic or FastAPI."""
    problems = [
        {"field": "body" if item["type"] == "json_invalid" else _field(item["loc"]), "problem": _rule(item)} for item in items[:_SHOWN]
    ]
    sentence = "; ".join(f"{problem['field']}: {problem['problem']}" for problem in problems[:3])
    return InvalidRequest(f"The request is not valid. {sentence}.", fields=problems)


def _field(location: Sequence[str | int]) -> str:
    parts = [str(part) for part in location[1 if location and location[0] in _WHERE else 0 :] if part not in _TAGS]
    name = ".".join(parts) or "body"  # the name of a metadata key is the caller's: bounded, and without control characters
    return "".join(c if c.isprintable() else "?" for c in name[:_LENGTH])


def _rule(item: Mapping[str, Any]) -> str:
    if item["type"] == "union_tag_invalid":  # pydantic's own sentence repeats the input
        return f"must be one of {item['ctx']['expected_tags']}"
    return str(item["msg"]).rstrip(".")[:_LENGTH]
