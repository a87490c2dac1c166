"""HX-Citadel Shield: web sites and documents to knowledge that agents query over MCP."""

__version__ = "0.2.0"
