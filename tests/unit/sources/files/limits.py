"""Limits for tests."""

from __future__ import annotations

from dataclasses import replace

from shield.settings import FileSettings
from shield.sources.files.limits import Limits

DEFAULT = Limits.of(FileSettings())


def limits(**changes: int) -> Limits:
    """The default limits with some changed."""
    return replace(DEFAULT, **changes)
