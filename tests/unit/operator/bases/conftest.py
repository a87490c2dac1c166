"""The world that the tests here begin with."""

from __future__ import annotations

import pytest

from tests.unit.operator.bases.world import World


@pytest.fixture
def world() -> World:
    return World()
