"""A stand-in for a Qdrant server, for tests only: Qdrant's REST subset over qdrant-client's local mode."""

from tests.peers.qdrant.server import QdrantPeer, create_app

__all__ = ["QdrantPeer", "create_app"]
