"""`make dev`: the whole fleet with one command, on fixed ports, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from tests.fleet.fleet import Fleet
from tests.fleet.members import NotReady

PORTS = {"mcp": 8000, "api": 8001, "valkey": 6380, "qdrant": 6335, "mcp-metrics": 9090, "api-metrics": 9091, "worker-0-metrics": 9092}

_GUIDE = """
MCP          {mcp}
REST         {api}/docs
PostgreSQL   {dsn}
Valkey       {redis}
Qdrant peer  {qdrant}
metrics      {metrics}
logs         {logs}/*.log

Try:  curl -s {api}/readyz
Ctrl-C stops and removes everything.
"""


def main() -> int:
    """Start, print where everything is, and stay until told to stop."""
    parser = argparse.ArgumentParser(prog="make dev", description="A fleet for development on this machine.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--free-ports", action="store_true", help="take free ports instead of the usual ones")
    parser.add_argument("--once", action="store_true", help="stop as soon as everything is ready (for tests)")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    print("Starting PostgreSQL, Valkey, the Qdrant peer, an orchestrator, an MCP server and", arguments.workers, "workers ...", flush=True)
    try:
        with Fleet(workers=arguments.workers, quick=False, ports={} if arguments.free_ports else PORTS) as fleet:
            names = [member.name for member in fleet.members]
            print(
                _GUIDE.format(
                    mcp=fleet.mcp_url,
                    api=fleet.api_url,
                    dsn=fleet.dsn,
                    redis=fleet.redis_url,
                    qdrant=fleet.qdrant_url,
                    metrics=" ".join(fleet.metrics_url(name) for name in names),
                    logs=fleet.directory,
                ),
                flush=True,
            )
            while not arguments.once and not stop.wait(1):
                for member in fleet.members:
                    if not member.alive:
                        print(f"{member.name} has ended:\n{member.tail(2000)}", file=sys.stderr)
                        return 1
            print("Stopping ...", flush=True)
    except NotReady as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
