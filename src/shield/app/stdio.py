"""MCP over standard input and output.

Standard output belongs to the protocol alone: it is duplicated for the transport and the original descriptor is pointed at
standard error, so that a library that prints cannot break a client's stream.
"""

from __future__ import annotations

import os
import sys

from shield.app.connect import connect
from shield.auth import LOCAL
from shield.mcp.server import create_mcp
from shield.settings import Settings
from shield.telemetry.metrics import Metrics


async def serve_stdio(settings: Settings) -> None:
    """Serve until the client closes its end; shares or becomes the owner of the data directory."""
    protocol = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = os.fdopen(protocol, "w", encoding="utf-8", buffering=1)
    async with connect(settings) as shield:
        server = create_mcp(shield, Metrics(), settings, principal=lambda: LOCAL, local_caller=True)
        await server.run_async(transport="stdio", show_banner=False)
