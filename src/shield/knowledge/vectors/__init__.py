"""The fast index over chunks: ids, vectors and filter fields, never text. It can always be rebuilt from PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shield.knowledge.vectors.port import VectorIndex
    from shield.resilience import Breakers
    from shield.settings import Settings

FOLDER = "vectors"
"""Where embedded mode keeps the index, below the data directory."""


def create_index(settings: Settings, breakers: Breakers) -> VectorIndex:
    """Qdrant's server if the settings name one, else Qdrant Edge in the data directory; nothing is opened yet."""
    if settings.qdrant.url:
        from shield.knowledge.vectors.qdrant import QdrantIndex

        return QdrantIndex(settings.qdrant, breakers)
    from shield.knowledge.vectors.edge import EdgeIndex

    return EdgeIndex(settings.data_dir / FOLDER)
