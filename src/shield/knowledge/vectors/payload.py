"""What a point carries, and filters over it, in one form for every adapter.

A payload holds `kb`, `document`, `revision`, `ordinal` and the filter fields; never text. A field's name may hold anything, but the
index reads dots and brackets as a path and has no escape, so names are encoded (`metadata.a` -> `f-metadata_2e_a`). Booleans are
kept as the words `true` and `false` under a prefix of their own, because Qdrant Edge does not match booleans from Python. Numbers
match by value: 5 finds 5.0. Integers beyond 2**53 match as the nearest double does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from shield.knowledge.vectors.port import FilterValue, Point, Range, SpaceKey, VectorFilter

KB, DOCUMENT, REVISION, ORDINAL = "kb", "document", "revision", "ordinal"
IDENTITY = [DOCUMENT, REVISION, ORDINAL]
"""What a search reads back of a payload."""

_VALUE, _BOOLEAN = "f-", "b-"


@dataclass(frozen=True)
class Words:
    """The field holds one of these words."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Between:
    """The field holds a number within these bounds."""

    key: str
    bounds: Range


Condition = Words | Between
Clause = tuple[Condition, ...]
"""Any of these conditions must hold; none at all can not."""


def payload_of(space: SpaceKey, point: Point) -> dict[str, object]:
    """The payload under which a point is stored; numbers that are not finite are left out, nothing could match them."""
    payload: dict[str, object] = {
        KB: str(space.knowledge_base_id),
        DOCUMENT: str(point.document_id),
        REVISION: point.revision,
        ORDINAL: point.ordinal,
    }
    for name, value in point.fields.items():
        if isinstance(value, bool):
            payload[_BOOLEAN + _encoded(name)] = _word(value)
        elif not isinstance(value, float) or math.isfinite(value):
            payload[_VALUE + _encoded(name)] = value
    return payload


def fields_of(payload: Mapping[str, object]) -> dict[str, object]:
    """A stored payload with the names and values it was given."""
    found: dict[str, object] = {}
    for key, value in payload.items():
        if key.startswith(_VALUE):
            found.setdefault(_decoded(key.removeprefix(_VALUE)), value)
        elif key.startswith(_BOOLEAN):
            found.setdefault(_decoded(key.removeprefix(_BOOLEAN)), value == _word(True))
        else:
            found[key] = value
    return found


def clauses_of(where: VectorFilter | None) -> list[Clause]:
    """The clauses that must all hold; `document`, `revision` and `ordinal` may be filtered by, the knowledge base may not."""
    return [] if where is None else [_clause(name, wanted) for name, wanted in where.must.items()]


def impossible(clauses: list[Clause]) -> bool:
    """Whether nothing can match: a clause offers no value."""
    return not all(clauses)


def _clause(name: str, wanted: FilterValue | tuple[FilterValue, ...] | Range) -> Clause:
    key = name if name in IDENTITY else _VALUE + _encoded(name)
    if isinstance(wanted, Range):
        return (Between(key, wanted),)
    values = wanted if isinstance(wanted, tuple) else (wanted,)
    words = tuple(value for value in values if isinstance(value, str))
    booleans = tuple(_word(value) for value in values if isinstance(value, bool))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    clause: list[Condition] = [Between(key, Range(gte=value, lte=value)) for value in numbers]
    if words:
        clause.append(Words(key, words))
    if booleans:
        clause.append(Words(_BOOLEAN + _encoded(name), booleans))
    return tuple(clause)


def _word(value: bool) -> str:
    return "true" if value else "false"


def _encoded(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", lambda match: f"_{ord(match[0]):x}_", name)


def _decoded(name: str) -> str:
    return re.sub(r"_([0-9a-f]+)_", lambda match: chr(int(match[1], 16)), name)
