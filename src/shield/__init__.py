"""HX-Citadel Shield: web sites and documents to knowledge that agents query over MCP."""

__version__ = "0.1.0"
