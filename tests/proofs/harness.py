"""A running app for a proof, on a data directory of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastmcp import Client

from shield.app.embedded import EmbeddedApp
from shield.app.owner import Ownership
from shield.database.embedded import prepare
from shield.settings import load
from shield.telemetry.logs import configure


@asynccontextmanager
async def app_on(data_dir: Path) -> AsyncIterator[EmbeddedApp]:
    """The whole process on `data_dir`, free ports, short durations."""
    configure("console", "error")
    settings = load(data_dir=data_dir, port=0, metrics_port=0, jobs={"lease": 4, "heartbeat": 1, "relay": 0.1})
    prepare(data_dir)
    ownership = Ownership.acquire(data_dir)
    if ownership is None:
        raise RuntimeError("the proof's data directory is in use")
    async with EmbeddedApp(settings, ownership) as app:
        yield app


@asynccontextmanager
async def data_directory() -> AsyncIterator[Path]:
    """A fresh directory, removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="shield-proof-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def ended(client: Client[Any], job_id: str) -> dict[str, Any]:
    """The job when it has ended."""
    while True:
        job = dict((await client.call_tool("get_job_status", {"job_id": job_id, "wait_seconds": 30})).structured_content or {})
        if job["status"] in {"completed", "failed", "cancelled"}:
            return job
