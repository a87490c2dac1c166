"""What the groups of settings are made of."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_settings import NoDecode

KiB, MiB, GiB = 1024, 1024**2, 1024**3
PREFIX = "SHIELD_"


def seconds(value: float) -> timedelta:
    """A duration in seconds."""
    return timedelta(seconds=value)


def _seconds_as_text(value: object) -> object:
    """Let `SHIELD_JOBS_LEASE=2` mean two seconds; ISO 8601 (`PT2S`) works too."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _split(value: object) -> object:
    """Let a variable hold several values, separated by commas."""
    return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(_seconds_as_text)]
"""A duration; bare numbers are seconds."""

Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Several words; in a variable, separated by commas."""

Numbers = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split)]
"""Several numbers; in a variable, separated by commas."""


class Group(BaseModel):
    """Base of the groups: unknown fields are mistakes, and docstrings are the descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
