"""What a person sees: one line a step, with its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Print a line where it does not mix with a command's result."""
    print(line, file=sys.stderr, flush=True)


def silent(_line: str) -> None:
    """Tell nobody."""


def duration(seconds: float) -> str:
    """`4.5 s`, or `6 min 55 s`."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


@contextmanager
def step(report: Report, name: str, *, announce: bool = False) -> Iterator[None]:
    """Report a step and its time when it ends, however it ends; `announce` a long one when it begins."""
    if announce:
        report(f"  {name} ...")
    began = time.monotonic()
    try:
        yield
    except BaseException:  # passes on: an interrupted step has its time told too
        report(f"  {name}: failed after {duration(time.monotonic() - began)}")
        raise
    report(f"  {name}: {duration(time.monotonic() - began)}")
