"""MCP server: one module a tool family."""
