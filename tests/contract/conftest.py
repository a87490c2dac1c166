"""The adapters that the contract suites run over; the summary of a run says which (`tests/conftest.py`)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from shield.knowledge.vectors.edge import EdgeIndex
from shield.knowledge.vectors.port import VectorIndex
from shield.knowledge.vectors.qdrant import QdrantIndex
from shield.resilience import Breakers
from shield.settings import BreakerSettings, QdrantSettings
from tests.peers.qdrant import QdrantPeer

SERVER = os.environ.get("SHIELD_TEST_QDRANT_URL")
ADAPTERS = ["edge", "qdrant_peer", *(["qdrant_server"] if SERVER else [])]


@pytest.fixture(scope="session")
def qdrant_peer() -> Iterator[QdrantPeer]:
    with QdrantPeer() as peer:
        yield peer


@pytest.fixture
async def edge_vectors(fast_dir: Path) -> AsyncIterator[VectorIndex]:
    index = EdgeIndex(fast_dir / "vectors")
    yield index
    await index.close()


@pytest.fixture
async def qdrant_peer_vectors(qdrant_peer: QdrantPeer) -> AsyncIterator[VectorIndex]:
    index = a_qdrant_index(qdrant_peer.url)
    yield index
    await index.close()


@pytest.fixture
async def qdrant_server_vectors() -> AsyncIterator[VectorIndex]:
    index = a_qdrant_index(SERVER or "")
    yield index
    await index.close()


@pytest.fixture(params=ADAPTERS)
def vectors(request: pytest.FixtureRequest) -> VectorIndex:
    index: VectorIndex = request.getfixturevalue(f"{request.param}_vectors")
    return index


def a_qdrant_index(url: str, api_key: str | None = None, timeout: float = 10, **more: Any) -> QdrantIndex:
    settings = QdrantSettings.model_validate({"url": url, "api_key": api_key, "timeout": timeout, **more})
    return QdrantIndex(settings, Breakers(BreakerSettings()))
