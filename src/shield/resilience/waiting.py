"""Waiting with a limit, in a way that never loses a cancellation (`asyncio.wait_for` on Python 3.11 can)."""

from __future__ import annotations

import asyncio


async def wait(event: asyncio.Event, limit: float) -> bool:
    """Whether `event` is set, as soon as it is, at the latest after `limit` seconds."""
    try:
        async with asyncio.timeout(limit):
            await event.wait()
    except TimeoutError:
        return False
    return True
