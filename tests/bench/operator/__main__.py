"""`make bench-operator`: all measurements, a table, and a profile of what missed its aim."""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from kind.control_plane import ControlPlane
from tests.bench.operator import report
from tests.bench.operator.measure import Line, Sizes, latency, lifecycle, many
from tests.fleet import Fleet
from tests.kubernetes.replica import end_in_order, install

_ROOT = Path(__file__).resolve().parents[3]
_PARTS = ("latency", "lifecycle", "many")
_GOGC = "400"
"""Of API server and etcd, which share two cores with everything else here: they collect garbage less often, and use more memory."""


def main() -> int:
    """Read the options and measure; 1 if an aim was missed."""
    parser = argparse.ArgumentParser(prog="make bench-operator")
    parser.add_argument("--part", action="append", choices=_PARTS, help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=60, help="how long each rate is held")
    parser.add_argument("--rates", default="10,50,100", help="IngestJobs a second, separated by commas")
    parser.add_argument("--ramp", default="125,150,200,250,300", help="the rates to try after them")
    parser.add_argument("--lifecycle", type=int, default=1000, help="IngestJobs that live a whole life")
    parser.add_argument("--many", type=int, default=10_000, help="IngestJobs of the backlog")
    parser.add_argument("--write", action="store_true", help="write the table into docs/BENCHMARKS.md, and profiles into docs/reports/")
    options = parser.parse_args()
    sizes = Sizes(
        seconds=options.seconds, rates=_numbers(options.rates), ramp=_numbers(options.ramp), lifecycle=options.lifecycle, many=options.many
    )
    end_in_order()
    os.environ.setdefault("GOGC", _GOGC)
    directory = Path(tempfile.mkdtemp(prefix="shield-bench-operator-"))
    try:
        found = _measure(options.part or _PARTS, sizes, directory, _ROOT / "docs" / "reports" if options.write else directory)
        for part, lines in found.items():
            if options.write:
                report.write(_ROOT / "docs" / "BENCHMARKS.md", part, report.section(lines, f'make bench-operator ARGS="--part {part}"'))
            print(f"\n{part}:\n{report.table(lines)}")
        return 1 if any(line.met is False for lines in found.values() for line in lines) else 0
    finally:
        if options.write or not any(directory.glob("profile-*")):
            shutil.rmtree(directory, ignore_errors=True)


def _measure(parts: list[str] | tuple[str, ...], sizes: Sizes, directory: Path, reports: Path) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    began = time.monotonic()
    with Fleet(workers=0, mcp=False, quick=False, environment={"SHIELD_LOG_LEVEL": "warning"}) as fleet:
        for part in parts:
            if part == "lifecycle":
                with ControlPlane(directory / part, kwok=True) as plane:
                    install(plane)
                    found[part] = asyncio.run(lifecycle(plane, fleet, directory, sizes))
            else:
                measure = functools.partial(latency if part == "latency" else many, fleet=fleet, directory=directory)
                found[part] = _profiled(part, directory, reports, measure, sizes)
            print(f"{part}: done after {time.monotonic() - began:.0f} s", flush=True)
    return found


def _profiled(
    part: str, directory: Path, reports: Path, measure: Callable[..., Coroutine[Any, Any, list[Line]]], sizes: Sizes
) -> list[Line]:
    """Measure on a control plane without controllers; what misses an aim is run again, shortly, under the profiler."""

    def once(number: int, sizes: Sizes, profile: Path | None) -> list[Line]:
        with ControlPlane(directory / f"{part}-{number}", controllers=False) as plane:
            install(plane)
            return asyncio.run(measure(plane, sizes=sizes, profile=profile))

    lines = once(1, sizes, None)
    if any(line.met is False for line in lines):
        raw, kept = directory / f"profile-{part}.prof", reports / f"profile-operator-{part}.txt"
        print(f"{part}: an aim was missed; once more under the profiler", flush=True)
        once(2, replace(sizes, seconds=min(sizes.seconds, 15), ramp=(), many=min(sizes.many, 2000)), raw)
        reports.mkdir(parents=True, exist_ok=True)
        kept.write_text(report.profile_text(raw), encoding="utf-8")
        print(f"{part}: profile in {kept}", flush=True)
    return lines


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


if __name__ == "__main__":
    sys.exit(main())
