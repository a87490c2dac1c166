"""Server-sent events of a job: framing, keep-alive and a clean end.

A silent stream sends a comment now and then, so that proxies keep it open and a dead connection is noticed. JSON is sent
as ASCII: a client that splits lines as Unicode does cannot be confused by what a page's title holds. Once the stream runs,
the status line is gone, so an error travels as an `error` event with the same fields as a problem, and ends the stream.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from fastapi.encoders import jsonable_encoder
from starlette.responses import StreamingResponse
from starlette.types import Scope

from shield.api.problems import internal_error
from shield.errors import ShieldError

Event = tuple[str, str, dict[str, Any]]
_LOG = logging.getLogger(__name__)
_KEEP_ALIVE = b": keep-alive\n\n"


def encode(event_id: str, event: str, data: dict[str, Any]) -> bytes:
    """One event on the wire; line breaks in the id or the name are dropped, so nothing can be smuggled in."""
    head = f"id: {_line(event_id)}\n" if event_id else ""
    return f"{head}event: {_line(event)}\ndata: {json.dumps(jsonable_encoder(data), separators=(',', ':'))}\n\n".encode()


def _line(text: str) -> str:
    return "".join(c for c in text if c.isprintable())


async def event_response(events: AsyncIterator[Event], keep_alive: timedelta, scope: Scope) -> StreamingResponse:
    """The streaming answer. The first event is fetched before it, so an unknown job is still a 404."""
    first = await anext(events)
    return StreamingResponse(
        _frames(first, events, keep_alive.total_seconds(), scope),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )


async def _frames(first: Event, events: AsyncIterator[Event], keep_alive: float, scope: Scope) -> AsyncIterator[bytes]:
    waiting: asyncio.Task[Event | None] | None = None
    try:
        yield encode(*first)
        while True:
            waiting = waiting or asyncio.create_task(_next(events))
            done, _ = await asyncio.wait({waiting}, timeout=keep_alive)
            if not done:
                yield _KEEP_ALIVE
                continue
            event, waiting = waiting.result(), None
            if event is None:
                return
            yield encode(*event)
    except ShieldError as error:
        yield encode("", "error", error.public())
    except Exception:  # noqa: BLE001  # the request boundary of a stream that has begun: the caller learns an id, the log the rest
        defect = internal_error(scope)
        _LOG.exception("event stream failed", extra=defect.details)
        yield encode("", "error", defect.public())
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait({waiting})
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)
