"""A fleet on a fresh database and an empty Valkey."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.promises.support import Fleet
from tests.peers.valkey import Valkey


@pytest.fixture
def fleet(engine: AsyncEngine, valkey: Valkey) -> Fleet:
    return Fleet(engine, valkey)
