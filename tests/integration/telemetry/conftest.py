"""A database that can be taken away."""

from __future__ import annotations

from tests.integration.worker.conftest import outage

__all__ = ["outage"]
