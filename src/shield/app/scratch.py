"""A directory of its own for each process that works beside others on one disk; what killed ones left is removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil


def private_scratch(parent: Path) -> Path:
    """Make `parent/{pid}` and return it; removes the directories there whose process has ended."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in parent.iterdir():
        if left.name.isdecimal() and not psutil.pid_exists(int(left.name)):
            shutil.rmtree(left, ignore_errors=True)
    own = parent / str(os.getpid())
    own.mkdir(exist_ok=True, mode=0o700)
    return own
