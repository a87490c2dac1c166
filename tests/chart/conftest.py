"""Suites that need Helm are marked `kubernetes` (Helm is built from source, once); what needs only Python is part of `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_PURE = {"test_generated.py", "test_network.py"}
_LIMIT = 240
"""Seconds a test: Helm and the API server have a busy machine to themselves."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here."""
    for item in items:
        if _HERE in item.path.parents and item.path.name not in _PURE:
            item.add_marker(pytest.mark.kubernetes)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_LIMIT))
