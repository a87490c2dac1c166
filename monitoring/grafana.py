"""Dashboards of Grafana, in as few words as a dashboard of ours needs: rows of panels, laid out from left to right.

The JSON has no ids that a Grafana would give, so the same code makes the same file, and any Grafana from 10 on imports it. Each panel says in its description
what it shows; each query carries the two variables, `datasource` and `namespace`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = dict[str, Any]

_WIDTH = 24
_DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
RATE = "$__rate_interval"
"""A range that is long enough for the scrape interval and the graph's resolution."""


class Unit(StrEnum):
    """What Grafana calls units."""

    COUNT = "short"
    SECONDS = "s"
    BYTES = "bytes"
    RATIO = "percentunit"
    PER_SECOND = "ops"
    TIME = "dateTimeFromNow"


@dataclass(frozen=True)
class Query:
    """A query, and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """What all panels have in common."""

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: Unit = Unit.COUNT
    width: int = 8
    height: int = 8
    kind: str = "timeseries"
    bad_above: float | None = None
    """From here on it is red."""
    options: Json = field(default_factory=dict)
    mappings: tuple[tuple[str, str, str], ...] = ()
    """Value, word and colour, for states."""
    stacked: bool = False

    def to_json(self, number: int, x: int, y: int) -> Json:
        """The panel as Grafana imports it."""
        steps: list[Json] = [{"color": "green", "value": None}]
        if self.bad_above is not None:
            steps.append({"color": "red", "value": self.bad_above})
        custom: Json = {}
        if self.kind == "timeseries":
            custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if self.stacked else 5, "showPoints": "never"}
            custom["stacking"] = {"mode": "normal" if self.stacked else "none", "group": "A"}
            custom["thresholdsStyle"] = {"mode": "off" if self.bad_above is None else "line"}
        values: Json = {value: {"text": word, "color": colour, "index": at} for at, (value, word, colour) in enumerate(self.mappings)}
        instant = self.kind in {"stat", "table"}
        return {
            "id": number,
            "title": self.title,
            "description": self.says,
            "type": self.kind,
            "datasource": _DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {
                "defaults": {
                    "unit": str(self.unit),
                    "min": 0,
                    "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
                    "thresholds": {"mode": "absolute", "steps": steps},
                    "mappings": [{"type": "value", "options": values}] if values else [],
                    "custom": custom,
                },
                "overrides": [],
            },
            "options": self.options or _OPTIONS.get(self.kind, {}),
            "targets": [
                {
                    "refId": chr(ord("A") + at),
                    "datasource": _DATASOURCE,
                    "expr": query.expr,
                    "legendFormat": query.legend or "__auto",
                    "instant": instant,
                    "range": not instant,
                    "format": "table" if self.kind == "table" else "time_series",
                }
                for at, query in enumerate(self.queries)
            ],
        }


_OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background",
        "graphMode": "none",
        "textMode": "value_and_name",
    },
    "state-timeline": {"mergeValues": True, "showValue": "never", "rowHeight": 0.8, "legend": {"showLegend": True, "displayMode": "list"}},
    "table": {"showHeader": True},
}


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A page."""

    uid: str
    title: str
    says: str
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """The file."""
        document: Json = {
            "uid": self.uid,
            "title": self.title,
            "description": self.says,
            "tags": ["shield"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "time": {"from": "now-6h", "to": "now"},
            "refresh": "30s",
            "timezone": "browser",
            "links": [
                {"type": "dashboards", "tags": ["shield"], "title": "Shield", "asDropdown": True, "includeVars": True, "keepTime": True}
            ],
            "annotations": {"list": []},
            "templating": {"list": [_DATASOURCES, _NAMESPACES]},
            "panels": _laid_out(self.rows),
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


_DATASOURCES: Json = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
_NAMESPACES: Json = {
    "name": "namespace",
    "label": "Namespace",
    "type": "query",
    "datasource": _DATASOURCE,
    "query": {"query": "label_values(shield_build_info, namespace)", "refId": "namespaces"},
    "refresh": 2,
    "sort": 1,
    "multi": True,
    "includeAll": True,
    "allValue": ".*",
    "current": {"text": "All", "value": "$__all"},
}


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    made: list[Json] = []
    y = 0
    for row in rows:
        made.append({"id": len(made) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": _line(y)})
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y, tallest = 0, y + tallest, 0
            made.append(panel.to_json(len(made) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return made


def _line(y: int) -> Json:
    return {"h": 1, "w": _WIDTH, "x": 0, "y": y}


def graph(
    title: str, says: str, *queries: Query, unit: Unit = Unit.COUNT, width: int = 8, bad_above: float | None = None, stacked: bool = False
) -> Panel:
    """Lines over time."""
    return Panel(title, says, queries, unit, width, bad_above=bad_above, stacked=stacked)


def stat(
    title: str, says: str, expr: str, *, unit: Unit = Unit.COUNT, bad_above: float | None = None, legend: str = "", width: int = 4
) -> Panel:
    """A number, or one for each series."""
    return Panel(title, says, (Query(expr, legend),), unit, width, 4, "stat", bad_above)


def states(title: str, says: str, expr: str, legend: str, mappings: tuple[tuple[str, str, str], ...]) -> Panel:
    """States over time, a line for each series."""
    return Panel(title, says, (Query(expr, legend),), Unit.COUNT, _WIDTH, 8, "state-timeline", mappings=mappings)


def table(title: str, says: str, *queries: Query, width: int = 24) -> Panel:
    """What holds now, as rows."""
    return Panel(title, says, queries, Unit.COUNT, width, 8, "table")
