"""The Qdrant test peer on all addresses of its pod: `python -m tests.kubernetes.services.qdrant`; the key is that of QDRANT_API_KEY_FILE."""

from __future__ import annotations

import os
from pathlib import Path

import uvicorn

from tests.peers.qdrant.server import create_app

if __name__ == "__main__":
    key = Path(os.environ["QDRANT_API_KEY_FILE"]).read_text().strip()
    uvicorn.run(create_app(key), host="0.0.0.0", port=6333, log_level="warning")
