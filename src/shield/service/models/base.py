"""Bases and scalar types of all models: what every surface refuses in the same words."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator

KbName = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
SourceName = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
MetadataValue = str | int | float | bool | list[str]


def no_boolean(value: object) -> object:
    """Refuse what Python would take for a number: `true`, and text."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")  # noqa: TRY004  # pydantic reads a ValueError
    return value


Number = Annotated[float, Field(strict=True)]
Whole = Annotated[int, BeforeValidator(no_boolean)]
"""Numbers; neither `true` nor `"1"` is one, here as over MCP."""
NO_OTHER_KEYS: dict[str, Any] = {"additionalProperties": False}  # pydantic refuses them, and forgets to say so in its schema
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], MetadataValue], Field(json_schema_extra=NO_OTHER_KEYS)
]


class Model(BaseModel):
    """Base: unknown fields are mistakes; descriptions are the docstrings."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Input(Model):
    """Base of what callers send: no number and no text that PostgreSQL cannot hold (NaN, infinity, NUL)."""

    model_config = ConfigDict(allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if _holds_nul(value):
            raise ValueError("must not contain NUL characters")
        return value


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_nul(item) for item in value.values())
    if isinstance(value, list):
        return any(_holds_nul(item) for item in value)
    return isinstance(value, str) and "\x00" in value
