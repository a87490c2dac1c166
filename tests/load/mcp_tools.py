"""Agents that call tools over stateless HTTP, for Locust: `locust -f tests/load/mcp_tools.py --host http://127.0.0.1:8000`.

A tool call is one POST, so Locust measures the server and not an MCP client. With `LOAD_RATE` (calls a second) the load is *open*:
calls begin at random times of that mean rate whether earlier ones were answered or not, as independent agents would; without it a
few agents call again as soon as they are answered (*closed*), which measures capacity. Every reply must be 2xx, 429 or 503 and come
within `LOAD_LIMIT` seconds (2); anything else is a failure.
"""

from __future__ import annotations

import os
import random
import time
from itertools import count
from typing import Any

import gevent
from locust import constant, events, task
from locust.contrib.fasthttp import FastHttpUser

RATE = float(os.environ.get("LOAD_RATE", "0"))
LIMIT = float(os.environ.get("LOAD_LIMIT", "2"))
JOB = os.environ.get("LOAD_JOB", "")
ALLOWED = frozenset({200, 202, 429, 503})
_VERSION = "2026-07-28"
_META = {
    "io.modelcontextprotocol/protocolVersion": _VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_WORDS = ("valve", "pump", "sensor", "boiler", "Aachen", "Bergen", "pressure", "inspector", "turbine", "filter")
_MIX = (("qdrant_find", 60), ("get_job_status", 15), ("list_knowledge_bases", 10), ("lightrag_query", 10), ("qdrant_store", 5))
_DICE = random.Random()  # noqa: S311  load, not secrets
_numbers = count(1)


def _arguments(tool: str) -> dict[str, Any]:
    words = " ".join(_DICE.sample(_WORDS, 2))
    match tool:
        case "qdrant_find":
            return {"query": f"Which {words} is checked?", "knowledge_base": "load"}
        case "lightrag_query":
            return {"query": f"Which {words} is checked?", "knowledge_base": "load", "mode": "naive"}
        case "get_job_status":
            return {"job_id": JOB}
        case "qdrant_store":
            number = _DICE.randrange(200)
            return {"text": f"Note {number}: the {words} was seen.", "source": f"note:{number}", "knowledge_base": "load"}
        case _:
            return {}


class Agent(FastHttpUser):
    """One stream of calls; in open load a few users share the rate."""

    wait_time = constant(0)
    concurrency = 2000
    network_timeout = 20.0
    connection_timeout = 10.0

    def on_start(self) -> None:
        """Agree on the share of the rate."""
        users = self.environment.parsed_options.num_users if self.environment.parsed_options else 1
        self._pause = users / RATE if RATE else 0.0

    @task
    def call(self) -> None:
        """One call; in open load nobody waits for its answer."""
        if not RATE:
            self._post()
            return
        gevent.spawn(self._post)
        gevent.sleep(_DICE.expovariate(1 / self._pause))

    def _post(self) -> None:
        (tool,) = _DICE.choices([name for name, _ in _MIX], [weight for _, weight in _MIX])
        message = {
            "jsonrpc": "2.0",
            "id": next(_numbers),
            "method": "tools/call",
            "params": {"name": tool, "arguments": _arguments(tool), "_meta": _META},
        }
        headers = {
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": _VERSION,
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        }
        began = time.perf_counter()
        with self.client.post("/mcp", json=message, headers=headers, name=tool, catch_response=True) as reply:
            took = time.perf_counter() - began
            if reply.status_code not in ALLOWED:
                reply.failure(f"status {reply.status_code}")
            elif took > LIMIT:
                reply.failure(f"answered with {reply.status_code} after more than {LIMIT:g} s")
            elif reply.status_code >= 400:
                SHED[reply.status_code] = SHED.get(reply.status_code, 0) + 1
                reply.success()
            elif '"isError":true' in reply.text:
                SHED["tool error"] = SHED.get("tool error", 0) + 1
                reply.success()
            else:
                reply.success()


SHED: dict[int | str, int] = {}
"""Replies that refuse, by status: right answers under overload, and worth knowing."""


@events.quitting.add_listener
def _tell(**_: Any) -> None:
    print(f"refused: {SHED}", flush=True)
