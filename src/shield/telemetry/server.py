"""`/metrics`, `/livez` and `/readyz` on a port of their own, in a thread: it answers even while the event loop is busy, and holds up nobody.

`/livez` is 200 while the event loop runs and 503 when it hangs; `/readyz` is 200 when the process waits for nothing, else 503 with
what it waits for. Neither asks anything of anyone, so a slow dependency never restarts a process. Slow or silent clients are cut off after ten seconds; closing waits for no client.
"""

from __future__ import annotations

import json
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from shield import __version__
from shield.errors import ConfigInvalid
from shield.telemetry.health import Health
from shield.telemetry.metrics import Metrics

CLIENT_TIMEOUT = 10.0
"""Seconds a client may stay silent."""


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT
    server_version = "shield"
    sys_version = ""
    metrics: Metrics
    health: Health | None

    def do_GET(self) -> None:
        match self.path.partition("?")[0], self.health:
            case "/metrics", _:
                self._answer(HTTPStatus.OK, *self.metrics.render(self.headers.get("Accept", "")))
            case "/livez", Health(heartbeat=heartbeat):
                self._tell(alive := heartbeat.alive, status="ok" if alive else "hung", lag_seconds=round(heartbeat.lag(), 3))
            case "/readyz", Health(waits_for=waits_for):
                self._tell(not (missing := waits_for()), status="waiting" if missing else "ok", waits_for=list(missing))
            case _:
                self.send_error(HTTPStatus.NOT_FOUND)

    def _tell(self, well: bool, **told: Any) -> None:
        body = json.dumps({**told, "version": __version__}).encode()
        self._answer(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, body, "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  the base class looks for this name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  a scrape every 15 s is no news
        """Write nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news either."""


class MetricsServer:
    """Serves `metrics`, and `health` if any, at http://`host`:`port` from construction until `close`; port 0 takes a free one.

    Raises:
        ConfigInvalid: the address cannot be bound.
    """

    def __init__(self, metrics: Metrics, host: str, port: int, health: Health | None = None) -> None:
        handler = type("Handler", (_Handler,), {"metrics": metrics, "health": health})
        server = type("Server", (_Server,), {"address_family": socket.AF_INET6 if ":" in host else socket.AF_INET})
        try:
            self._server: ThreadingHTTPServer = server((host, port), handler)
        except OSError as error:
            raise ConfigInvalid(
                f"The metrics cannot be served on {host}:{port} ({error.strerror or 'not an address'}); "
                "set SHIELD_METRICS_PORT to another port, or to 0 for a free one."
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port. Takes a fraction of a second; a second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
