"""`python -m tests.kubernetes.e2e [--full]`: from nothing to answers over MCP, with the time of each stage.

    python -m tests.kubernetes.e2e                the short form: ingest, find, attacks
    python -m tests.kubernetes.e2e --full         all of it, and a report in docs/reports
    python -m tests.kubernetes.e2e -- -k site     what follows -- goes to pytest

A cluster that runs already is used and left running; one that was started here is stopped at the end (`--keep` leaves it). Ends with 1 if
a test failed, or none ran.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from kind.cluster import Cluster
from kind.console import duration, to_stderr
from kind.prerequisites import Program, ensure_programs
from kind.settings import KindSettings
from tests.kubernetes.e2e.report import Stage, read_results, write_report

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
REPORTS = ROOT / "docs" / "reports"
BUILDER = (Program("buildah", "buildah"), Program("mmdebstrap", "mmdebstrap"))
"""What builds images where there is no Docker and no public registry."""
T = TypeVar("T")
_LIMIT = 3600
"""Seconds for a stage: images may have to be built from nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kubernetes.e2e", description="The product on a local cluster, as its users meet it."
    )
    parser.add_argument("--full", action="store_true", help="with nodes, services and operators that fail; writes a report")
    parser.add_argument("--keep", action="store_true", help="leave a cluster running that was started here")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args(arguments)
    cluster = Cluster(KindSettings(), to_stderr)
    ran_before = cluster.first_process() is not None
    stages: list[Stage] = []
    try:
        ensure_programs(BUILDER, to_stderr)
        _timed(stages, "cluster", cluster.up)
        _timed(stages, "images", lambda: _run("-m", "images", "operator", "server", "services"))
        with tempfile.TemporaryDirectory() as scratch:
            found = Path(scratch) / "results.xml"
            chosen = [] if options.full else [f"--ignore={HERE / 'full'}"]
            written = [f"--junitxml={found}", "-o", "junit_family=xunit1"]  # the form that has figures of tests
            command = ["-m", "pytest", "-n0", "-p", "no:randomly", "-m", "kubernetes", *written, *chosen, *options.pytest, str(HERE)]
            failed = _timed(stages, "tests", lambda: _run(*command, check=False))
            results = read_results(found) if found.exists() else []
        if options.full:
            told = "python -m tests.kubernetes.e2e --full"
            print(f"written: {write_report(REPORTS, told, stages, results).relative_to(ROOT)}")
    finally:
        if not ran_before and not options.keep:
            _timed(stages, "cluster stopped", cluster.down)
    for stage in stages:
        print(f"  {stage.name:<18}{duration(stage.seconds)}")
    passed = sum(result.outcome == "passed" for result in results)
    print(f"e2e: {passed} of {len(results)} passed")
    return int(bool(failed) or not passed)


def _timed(stages: list[Stage], name: str, work: Callable[[], T]) -> T:
    began = time.monotonic()
    result = work()
    stages.append(Stage(name, time.monotonic() - began))
    return result


def _run(*arguments: str, check: bool = True) -> int:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, timeout=_LIMIT, check=check).returncode


if __name__ == "__main__":
    sys.exit(main())
