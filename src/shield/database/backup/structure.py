"""What a database consists of: which tables are ours, in which order they can be filled, and how LightRAG's look.

Our own tables are made by migrations, so a backup names their columns only. LightRAG makes its tables itself, one set a model and
dimension; a backup describes them from the catalogue, and restoring makes them from that description. A description is text from a
file, so it is held to what LightRAG uses: known types, plain defaults, keys, and indexes without function calls.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from shield.database.tables import metadata

FOREIGN = "lightrag_"
"""How LightRAG's tables begin."""
OURS = frozenset(metadata.tables) - {"schema_version"}
"""Tables whose rows a backup holds; the schema's version is the migrations' business."""

_TYPE = (
    r"(text|jsonb|json|boolean|smallint|integer|bigint|real|double precision|bytea|uuid|date|numeric(\(\d+(,\d+)?\))?|character varying(\(\d+\))?"
    r"|timestamp(\(\d\))? with(out)? time zone|(halfvec|vector|sparsevec)\(\d+\))(\[\])?"
)
_DEFAULT = r"('[^'\\]*'::[a-z ]+(\(\d+\))?(\[\])?|NULL::[a-z ]+(\(\d+\))?(\[\])?|-?\d+(\.\d+)?|true|false|now\(\)|CURRENT_TIMESTAMP)"
_KEY = r"(PRIMARY KEY|UNIQUE) \([\w, ]+\)"
_REFERENCE = r"FOREIGN KEY \([\w, ]+\) REFERENCES lightrag_\w+\([\w, ]+\)( ON (UPDATE|DELETE) (CASCADE|RESTRICT|SET NULL|NO ACTION))*"
_METHODS = ("btree", "hash", "gin", "gist", "hnsw", "ivfflat")
_BEFORE_BRACKETS = frozenset({*_METHODS, "WHERE", "WITH", "AND", "OR", "NOT"})  # so an index calls nothing


def _form(pattern: str) -> AfterValidator:
    def whole(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError("unknown form")
        return text

    return AfterValidator(whole)


def _plain_index(text: str) -> str:
    methods = "|".join(_METHODS)
    calls = set(re.findall(r"([\w\"]+)\s*\(", text)) - _BEFORE_BRACKETS
    if len(text) > 2000 or not re.fullmatch(rf"({methods}) \([^;\\$]+", text) or calls or "--" in text or "/*" in text:
        raise ValueError("unknown form")
    return text


Name = Annotated[str, _form(r"[a-z_][a-z0-9_]{0,62}")]


class _Json(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnDef(_Json):
    """A column of a foreign table."""

    name: Name
    type: Annotated[str, _form(_TYPE)]
    not_null: bool
    default: Annotated[str, _form(_DEFAULT)] | None = None


class ConstraintDef(_Json):
    """A primary key, unique or foreign key, as PostgreSQL writes it."""

    name: Name
    definition: Annotated[str, _form(f"{_KEY}|{_REFERENCE}")]


class IndexDef(_Json):
    """An index: what stands behind USING."""

    name: Name
    unique: bool
    definition: Annotated[str, AfterValidator(_plain_index)]


class ForeignDef(_Json):
    """How to make a table that no migration makes."""

    columns: tuple[ColumnDef, ...]
    constraints: tuple[ConstraintDef, ...]
    indexes: tuple[IndexDef, ...]


class TableDef(_Json):
    """A table: its columns in the order of its rows' fields."""

    name: Name
    columns: tuple[Name, ...]
    foreign: ForeignDef | None = None
