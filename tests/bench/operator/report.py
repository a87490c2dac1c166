"""The table, for people and for docs/BENCHMARKS.md; profiles of what missed its aim."""

from __future__ import annotations

import io
import os
import platform
import pstats
from collections.abc import Sequence
from pathlib import Path

from tests.bench.operator.measure import Line


def markers(part: str) -> tuple[str, str]:
    """Between which lines of the page a part's figures stand."""
    return f"<!-- bench-operator {part}: generated from here -->", f"<!-- bench-operator {part}: to here -->"


def table(lines: Sequence[Line]) -> str:
    """As Markdown."""
    rows = ["| what | figure | aim | met | processor (cores), remarks |", "|---|---|---|---|---|"]
    for line in lines:
        met = "" if line.met is None else "yes" if line.met else "**no**"
        rows.append(f"| {line.what} | {line.figure} | {line.aim} | {met} | {line.with_} |")
    return "\n".join(rows)


def section(lines: Sequence[Line], command: str) -> str:
    """What stands between a part's markers."""
    machine = (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, everything on this one machine: etcd, API server (both GOGC={os.environ.get('GOGC', '100')}),"
        " the operator, the load"
    )
    return f"`{command}` ({machine}):\n\n{table(lines)}\n"


def write(file: Path, part: str, content: str) -> None:
    """Put a part's section between its markers.

    Raises:
        ValueError: the markers are not there.
    """
    first, last = markers(part)
    head, begin, rest = file.read_text(encoding="utf-8").partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{file} has no place for the figures: {first} ... {last}")
    file.write_text(f"{head}{first}\n{content}{last}{tail}", encoding="utf-8")


def profile_text(raw: Path) -> str:
    """What took the operator's time, by its own and by cumulated time."""
    text = io.StringIO()
    stats = pstats.Stats(str(raw), stream=text).strip_dirs()
    for order in ("tottime", "cumulative"):
        stats.sort_stats(order).print_stats(40)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
