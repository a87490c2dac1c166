"""What the tests on a real API server share. They are marked `kubernetes` here; `make test-kubernetes` runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kind.control_plane import ControlPlane

_HERE = Path(__file__).parent
_LIMIT = 300
"""Seconds a test: a control plane or a cluster may have to start first, on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here, and give it time."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_LIMIT))


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One API server with controllers for all tests; each test makes namespaces of its own."""
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        yield plane
