"""The dashboards' queries, as Grafana would send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.monitoring.cases import NAMESPACE

_WORDS = {"$namespace": NAMESPACE, "$__rate_interval": "1m"}


@dataclass(frozen=True)
class Panel:
    """What a panel asks."""

    board: str
    title: str
    queries: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.board} / {self.title}"


def panels(directory: Path) -> Iterator[Panel]:
    """All panels of the dashboards in a directory, with the variables filled in."""
    for path in sorted(directory.glob("*.json")):
        row = ""
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            if panel["type"] == "row":
                row = panel["title"].partition(":")[0]
            else:
                yield Panel(path.stem, f"{row} / {panel['title']}", tuple(_filled(target["expr"]) for target in panel["targets"]))


def _filled(expr: str) -> str:
    for word, value in _WORDS.items():
        expr = expr.replace(word, value)
    return expr
