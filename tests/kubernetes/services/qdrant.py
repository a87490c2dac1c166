"""The Qdrant test peer on all addresses of its pod: `python -m tests.kubernetes.services.qdrant`.

The key is that of QDRANT_API_KEY_FILE, or as in the public image QDRANT__SERVICE__API_KEY.
"""

from __future__ import annotations

import os
from pathlib import Path

import uvicorn

from tests.peers.qdrant.server import create_app

if __name__ == "__main__":
    key = os.environ.get("QDRANT__SERVICE__API_KEY") or Path(os.environ["QDRANT_API_KEY_FILE"]).read_text().strip()
    uvicorn.run(create_app(key), host="0.0.0.0", port=6333, log_level="warning")
