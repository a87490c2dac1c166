"""A suite of tests on the local cluster, from nothing: cluster, images, tests, and with `--full` a report in docs/reports.

A cluster that runs already is used and left running, unless the suite wants a fresh one; one that was started here is stopped at the end
(`--keep` leaves it). Ends with 1 if a test failed, or none ran.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kind.cluster import Cluster
from kind.console import duration, to_stderr
from kind.prerequisites import Program, ensure_programs
from kind.settings import KindSettings
from tests.kubernetes.suite_report import Stage, read_results, write_report

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "docs" / "reports"
BUILDER = (Program("buildah", "buildah"), Program("mmdebstrap", "mmdebstrap"))
"""What builds images where there is no Docker and no public registry."""
T = TypeVar("T")
_LIMIT = 3600
"""Seconds for a stage: images may have to be built from nothing."""


@dataclass(frozen=True)
class Suite:
    """What is run."""

    name: str
    """Of its report, and of its last line."""
    title: str
    """Of the report."""
    directory: Path
    """Where its tests are."""
    only_full: Sequence[str] = ()
    """Files and directories there that the short form leaves out."""
    fresh: bool = False
    """It wants a cluster of its own, on which nothing was installed before."""


def main(suite: Suite, arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code."""
    module = ".".join(suite.directory.relative_to(ROOT).parts)
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=suite.title)
    parser.add_argument("--full", action="store_true", help="all of it; writes a report")
    parser.add_argument("--keep", action="store_true", help="leave a cluster running that was started here")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args(arguments)
    cluster = Cluster(KindSettings(), to_stderr)
    ran_before = cluster.first_process() is not None
    stages: list[Stage] = []
    try:
        ensure_programs(BUILDER, to_stderr)
        if suite.fresh and ran_before:
            cluster.down()
            cluster = Cluster(KindSettings(), to_stderr)
        _timed(stages, "cluster", cluster.up)
        _timed(stages, "images", lambda: _run("-m", "images", "operator", "server", "services"))
        with tempfile.TemporaryDirectory() as scratch:
            found = Path(scratch) / "results.xml"
            left_out = [] if options.full else [f"--ignore={suite.directory / name}" for name in suite.only_full]
            written = [f"--junitxml={found}", "-o", "junit_family=xunit1"]  # the form that has figures of tests
            command = ["-m", "pytest", "-n0", "-p", "no:randomly", "-m", "kubernetes", *written, *left_out, *options.pytest]
            failed = _timed(stages, "tests", lambda: _run(*command, str(suite.directory), check=False))
            results = read_results(found) if found.exists() else []
        if options.full:
            told = f"python -m {module} --full"
            print(f"written: {write_report(REPORTS / f'{suite.name}.md', suite.title, told, stages, results).relative_to(ROOT)}")
    finally:
        if not ran_before and not options.keep:
            _timed(stages, "cluster stopped", cluster.down)
    for stage in stages:
        print(f"  {stage.name:<18}{duration(stage.seconds)}")
    passed = sum(result.outcome == "passed" for result in results)
    print(f"{suite.name}: {passed} of {len(results)} passed")
    return int(bool(failed) or not passed)


def _timed(stages: list[Stage], name: str, work: Callable[[], T]) -> T:
    began = time.monotonic()
    result = work()
    stages.append(Stage(name, time.monotonic() - began))
    return result


def _run(*arguments: str, check: bool = True) -> int:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, timeout=_LIMIT, check=check).returncode
