"""Filters as callers write them, turned into those of the vector index; an unknown field is a mistake, never ignored."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from shield.errors import InvalidRequest
from shield.knowledge.draft import filterable
from shield.knowledge.needles import MIN_WORDS
from shield.knowledge.vectors.port import FilterValue, Range, VectorFilter

TEXT_FIELDS = ("source", "kind", "mime", "host")
NUMBER_FIELDS = ("fetched_at",)
ADVERTISED = "source, kind, mime, host, document_id, fetched_at (seconds since 1970) or metadata.<key>"
MAX_FILTERS, MAX_VALUES = 16, 100
_METADATA = re.compile(r"metadata\.[A-Za-z0-9_.-]{1,64}")
_BOUNDS = ("gte", "lte", "gt", "lt")


def vector_filter(filters: Mapping[str, Any]) -> VectorFilter | None:
    """All of the filters must hold; a list means any of its values, a mapping of gte, lte, gt, lt bounds a number.

    Raises:
        InvalidRequest: a field or a value that cannot be filtered by; names the field, never the value.
    """
    if not filters:
        return None
    if len(filters) > MAX_FILTERS:
        raise InvalidRequest(f"At most {MAX_FILTERS} filters are taken.", field="filters")
    return VectorFilter({_field(name): _condition(name, value) for name, value in filters.items()})


def _field(name: str) -> str:
    if name == "document_id":
        return "document"
    if name in TEXT_FIELDS or name in NUMBER_FIELDS or _METADATA.fullmatch(name):
        return name
    raise InvalidRequest(f"There is no filter field `{name[:80]}`; filter by {ADVERTISED}.", field=f"filters.{name[:80]}")


def _condition(name: str, value: Any) -> FilterValue | tuple[FilterValue, ...] | Range:
    if isinstance(value, Mapping):
        return _range(name, value)
    if isinstance(value, list | tuple):
        if not 1 <= len(value) <= MAX_VALUES:
            raise _refused(name, f"takes 1 to {MAX_VALUES} values")
        return tuple(_value(name, item) for item in value)
    return _value(name, value)


def _value(name: str, value: Any) -> FilterValue:
    if name == "document_id":
        try:
            return str(UUID(str(value)))
        except ValueError:
            raise _refused(name, "takes a document id") from None
    if name in TEXT_FIELDS and not isinstance(value, str):
        raise _refused(name, "takes text")
    if name in NUMBER_FIELDS and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _refused(name, "takes a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise _refused(name, "takes a finite number")
    if isinstance(value, str) and name not in TEXT_FIELDS and not filterable(value):
        raise _refused(name, f"takes values of fewer than {MIN_WORDS} words")
    if not isinstance(value, str | int | float | bool):
        raise _refused(name, "takes text, a number, true or false, a list of texts, or bounds")
    return value


def _range(name: str, bounds: Mapping[str, Any]) -> Range:
    given = {key: value for key, value in bounds.items() if value is not None}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in given.values())
    if name == "document_id" or name in TEXT_FIELDS or not given or not numbers or set(given) - set(_BOUNDS):
        raise _refused(name, "takes bounds only as numbers under gte, lte, gt or lt, and only where the field is a number")
    return Range(**{key: float(value) for key, value in given.items()})


def _refused(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"The filter `{name}` {what}.", field=f"filters.{name}")
