"""The table, for people and for docs/BENCHMARKS.md; profiles of what missed its aim."""

from __future__ import annotations

import io
import os
import platform
import pstats
from collections.abc import Sequence
from pathlib import Path

from tests.bench.operator.measure import Line

BEGIN, END = "<!-- bench-operator: generated from here -->", "<!-- bench-operator: to here -->"
_PEERS = """
What others publish, each in its own set-up:

| project | figure | set-up |
|---|---|---|
| Kueue | 15,000 workloads in 351 s = 42.7/s, 50,000 in 1,179 s = 42.4/s | API server, etcd and a stripped-down controller, no nodes |
| Spark operator 2.1 | 130 applications a minute with 10 workers, 140 to 155 with 20 | 6,000 offered at 1,000 a minute; 25 to 36 cores |
| KubeRay 1.1.1 | 1,000 RayJobs complete after 917 s, 5,000 after 2,733 s | a whole cluster; creation of CRs at 93 to 100/s |
"""


def table(lines: Sequence[Line]) -> str:
    """As Markdown."""
    rows = ["| what | figure | aim | met | processor (cores), remarks |", "|---|---|---|---|---|"]
    for line in lines:
        met = "" if line.met is None else "yes" if line.met else "**no**"
        rows.append(f"| {line.what} | {line.figure} | {line.aim} | {met} | {line.with_} |")
    return "\n".join(rows)


def section(lines: Sequence[Line], command: str) -> str:
    """What stands between the markers."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, everything on this one machine: etcd, API server, the operator, the load"
    return f"`{command}` ({machine}):\n\n{table(lines)}\n{_PEERS}"


def write(file: Path, content: str) -> None:
    """Put the section between its markers.

    Raises:
        ValueError: the markers are not there.
    """
    text = file.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{file} has no place for the figures: {BEGIN} ... {END}")
    file.write_text(f"{head}{BEGIN}\n{content}{END}{tail}", encoding="utf-8")


def profile_text(raw: Path) -> str:
    """What took the operator's time, by its own and by cumulated time."""
    text = io.StringIO()
    stats = pstats.Stats(str(raw), stream=text).strip_dirs()
    for order in ("tottime", "cumulative"):
        stats.sort_stats(order).print_stats(40)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
