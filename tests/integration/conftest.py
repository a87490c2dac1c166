"""The whole process, in this one: `shield up` without its own interpreter, for tests that drive it through its surfaces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from fastmcp import Client

from shield.app.embedded import EmbeddedApp
from shield.app.owner import Ownership
from shield.database.embedded import prepare
from shield.settings import Settings

Running = Callable[..., AbstractAsyncContextManager[EmbeddedApp]]


@pytest.fixture
def running(settings: Settings) -> Running:
    """Start the app: `async with running(egress={"allow": (...)}) as app`; a group's dictionary updates it."""

    @asynccontextmanager
    async def start(**given: Any) -> AsyncIterator[EmbeddedApp]:
        changes = {
            name: getattr(settings, name).model_copy(update=value) if isinstance(value, dict) else value for name, value in given.items()
        }
        chosen = settings.model_copy(update=changes)
        prepare(chosen.data_dir)
        ownership = Ownership.acquire(chosen.data_dir)
        assert ownership is not None
        async with EmbeddedApp(chosen, ownership) as app:
            yield app

    return start


async def ended(client: Client[Any], job_id: str) -> dict[str, Any]:
    """The job when it has ended, through the tool."""
    for _ in range(20):
        job = (await client.call_tool("get_job_status", {"job_id": job_id, "wait_seconds": 30})).structured_content or {}
        if job["status"] in {"completed", "failed", "cancelled"}:
            return dict(job)
    raise AssertionError(f"the job did not end: {job}")
