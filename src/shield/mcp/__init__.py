"""MCP server: one module a tool family over the `Shield` port, and one middleware for counts and errors."""

from shield.mcp.identity import caller
from shield.mcp.server import create_mcp, http_app, warm_up

__all__ = ["caller", "create_mcp", "http_app", "warm_up"]
