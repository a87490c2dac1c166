"""Where a wheel's files lie, without importing it: what it imports itself is not needed for the program that it brings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def inside(package: str) -> Path:
    """The directory of an installed package.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package)
    return Path(spec.origin).parent
