"""`python -m tests.peers.qdrant --port N`: serve the peer on 127.0.0.1 until stopped."""

from __future__ import annotations

import argparse

import uvicorn

from tests.peers.qdrant.server import create_app

parser = argparse.ArgumentParser(prog="python -m tests.peers.qdrant", description="A stand-in for a Qdrant server, in memory.")
parser.add_argument("--port", type=int, default=6333)
parser.add_argument("--api-key")
arguments = parser.parse_args()
uvicorn.run(create_app(arguments.api_key), host="127.0.0.1", port=arguments.port, log_level="warning")
