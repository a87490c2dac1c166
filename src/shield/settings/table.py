"""Settings as people see them: a row each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from shield.settings.base import PREFIX, Group
from shield.settings.everything import Settings


@dataclass(frozen=True)
class SettingRow:
    """One setting as people see it: its variable, its value (secrets masked), and what it means."""

    variable: str
    value: str
    is_default: bool
    description: str


def describe(settings: Settings) -> list[SettingRow]:
    """All settings in their order; `shield config` and docs/SETTINGS.md are made of this."""
    rows: list[SettingRow] = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Group):
            for part, inner in type(value).model_fields.items():
                rows.append(_row(f"{PREFIX}{name}_{part}".upper(), getattr(value, part), inner))
        else:
            rows.append(_row(f"{PREFIX}{name}".upper(), value, field))
    return rows


def _row(variable: str, value: Any, field: FieldInfo) -> SettingRow:
    default = field.get_default(call_default_factory=True, validated_data={})
    return SettingRow(variable, _shown(value), value == default, field.description or "")


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "unset"
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, ByteSize):
        return value.human_readable()
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value)  # a SecretStr prints as asterisks
