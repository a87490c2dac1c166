"""What a run found, as a page that says on which commit, by which command, and on what machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil

from kind.console import duration


@dataclass(frozen=True)
class Stage:
    """A part of the run."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Result:
    """A test's end."""

    name: str
    outcome: str
    seconds: float
    figures: dict[str, str] = field(default_factory=dict)
    """What it measured, by name with unit."""


def read_results(path: Path) -> list[Result]:
    """The results in pytest's JUnit file, which its own run has just written."""
    return [_result(case) for case in ET.parse(path).iter("testcase")]  # noqa: S314  # our own file


def _result(case: ET.Element) -> Result:
    outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
    figures = {item.attrib["name"]: item.attrib["value"] for item in case.iter("property")}
    return Result(case.attrib["name"], outcome, float(case.attrib["time"]), figures)


def write_report(path: Path, title: str, command: str, stages: Sequence[Stage], results: Sequence[Result]) -> Path:
    """Write it, in place of the last one's."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(render(title, command, stages, results, commit=_commit(), now=datetime.now(UTC)), encoding="utf-8")
    return path


def render(title: str, command: str, stages: Sequence[Stage], results: Sequence[Result], *, commit: str, now: datetime) -> str:
    """The page."""
    passed = sum(result.outcome == "passed" for result in results)
    memory = psutil.virtual_memory().total / 1024**3
    lines = [
        f"# {title}",
        "",
        f"`{command}` on commit `{commit}`, {now:%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}.",
        f"**{passed} of {len(results)} passed.** Times are of one run on a machine that may have done other things.",
        "",
        "| stage | took |",
        "|---|---|",
        *(f"| {stage.name} | {duration(stage.seconds)} |" for stage in stages),
        "",
        "| test | result | took | figures |",
        "|---|---|---|---|",
        *(_row(result) for result in results),
    ]
    return "\n".join(lines) + "\n"


def _row(result: Result) -> str:
    figures = "; ".join(f"{name}: {value}" for name, value in result.figures.items())
    return f"| {result.name.removeprefix('test_').replace('_', ' ')} | {result.outcome} | {duration(result.seconds)} | {figures} |"


def _commit() -> str:
    """The commit, and whether the tree differs from it."""
    said = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, timeout=20, check=True)
    return said.stdout.strip()
