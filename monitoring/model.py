"""What `slo_config.yml` and `rules.yml` may say; anything else in them is an error with the place of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(duration: str) -> int:
    """A duration of Prometheus with one unit (`5m`), in seconds."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


Duration = Annotated[str, Field(pattern=r"^[0-9]+[smhd]$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
AlertName = Annotated[str, Field(pattern=r"^Shield[A-Z][A-Za-z]+$")]
Text = Annotated[str, BeforeValidator(lambda value: " ".join(value.split()) if isinstance(value, str) else value), Field(min_length=1)]


class Severity(StrEnum):
    """Who hears of an alert, and when."""

    CRITICAL = "critical"
    """Someone, at once."""
    WARNING = "warning"
    """Someone, in working hours."""


class Part(BaseModel):
    """A part of the configuration: closed and unchangeable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tools(Part):
    """Which tool is promised what; each tool stands in one list."""

    query: tuple[str, ...]
    accept: tuple[str, ...]
    not_counted: tuple[str, ...]


class Window(Part):
    """A pair of windows that alert together."""

    severity: Severity
    budget: str
    long: Duration
    short: Duration
    factor: float = Field(gt=0)
    for_: Duration = Field(alias="for")


class Sli(Part):
    """How bad a window was: bad and all events a second, or the name of a series that is 1 in bad moments and 0 in good ones."""

    bad: str = ""
    total: str = ""
    slice: str = ""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if bool(self.slice) == bool(self.bad) or bool(self.bad) != bool(self.total):
            raise ValueError("either `bad` and `total`, or `slice`")
        return self


class Slo(Part):
    """An objective: which share of events or time is good over the period."""

    name: Name
    group: Name
    alert: AlertName
    objective: float = Field(gt=0, lt=100)
    pages: bool = True
    """False: however fast the budget burns, it can wait for working hours."""
    description: Text
    minimum_bad: dict[Duration, float]
    """Bad events, or seconds of a slice, that the long window must hold at least."""
    sli: Sli

    @property
    def budget(self) -> float:
        """The share that may be bad."""
        return round(1 - self.objective / 100, 10)


class Config(Part):
    """All of `slo_config.yml`."""

    service: Name
    period: Duration
    tools: Tools
    windows: tuple[Window, ...]
    slos: tuple[Slo, ...]


class Record(Part):
    """A recording rule."""

    record: Annotated[str, Field(pattern=r"^shield(_track)?:[a-z0-9_]+:[a-z0-9_]+$")]
    expr: str
    labels: dict[str, str] = {}


class Alert(Part):
    """An alerting rule; several may share a name, and then a runbook."""

    alert: AlertName
    severity: Severity
    for_: Duration = Field(alias="for")
    expr: str
    missing: str = ""
    """A selector whose absence alerts as well, where it is known that it must be there."""
    summary: Text
    description: Text


class RecordGroup(Part):
    """Recording rules that are evaluated one after the other."""

    group: Name
    interval: Duration = "30s"
    rules: tuple[Record, ...]


class AlertGroup(Part):
    """Alerts of one part of the product, which may be absent."""

    group: Name
    rules: tuple[Alert, ...]


class Rules(Part):
    """All of `rules.yml`."""

    recording: tuple[RecordGroup, ...]
    alerts: tuple[AlertGroup, ...]


def load(directory: Path) -> tuple[Config, Rules]:
    """Both files of a directory.

    Raises:
        pydantic.ValidationError: one of them says what is not understood.
    """
    return Config.model_validate(_read(directory / "slo_config.yml")), Rules.model_validate(_read(directory / "rules.yml"))


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
