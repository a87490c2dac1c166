"""Redis as the queue's nervous system: names, a client that never waits long, and one word for whatever goes wrong.

Everything in Redis is a hint. What it says may be late, doubled or lost, and whoever reads it asks PostgreSQL before acting;
so no failure of Redis is more than `StreamsAway`, which its callers answer by doing without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shield.jobs.choice import Out
from shield.jobs.model import JobId, Priority
from shield.settings import RedisSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis

STREAMS = {priority: f"shield:jobs:{priority}" for priority in Priority}
"""One stream of hints a priority; the names are an upgrade contract."""
GROUP = "workers"
"""The consumer group of all workers."""
EVENTS = "shield:events"
"""The stream of what watchers of jobs see."""
MAX_HINTS = 10_000
"""Hints a stream keeps at most; far more than are ever out at once, so only what nobody reads is cut off."""
MAX_EVENTS = 100_000


class StreamsAway(Exception):
    """Redis cannot be asked just now."""


def connect(settings: RedisSettings) -> Redis:
    """A client for `redis.url`; connects when it is used, and tries nothing twice.

    Raises:
        ValueError: there is no such address.
    """
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    if settings.url is None:
        raise ValueError("SHIELD_REDIS_URL is not set")
    limit = settings.timeout.total_seconds()
    return Redis.from_url(
        settings.url.get_secret_value(),
        socket_timeout=limit,
        socket_connect_timeout=limit,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=True,
        encoding_errors="replace",
        client_name="shield",
    )


def blocking(settings: RedisSettings) -> int:
    """How long a read may block, in milliseconds: at most a second, and well within the limit of an answer."""
    return max(1, int(min(1.0, settings.timeout.total_seconds() / 2) * 1000))


@contextmanager
def away() -> Iterator[None]:
    """Raise `StreamsAway` for everything that a Redis in trouble can answer, or fail to.

    redis-py sends through `asyncio.wait_for`, which on Python 3.11 loses a cancellation that arrives as it ends; it is raised here.
    """
    from redis.exceptions import RedisError

    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    trouble: Exception | None = None
    try:
        yield
    except (RedisError, OSError) as error:
        trouble = error
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    if trouble is not None:
        raise StreamsAway(type(trouble).__name__) from trouble


async def answers(settings: RedisSettings) -> bool:
    """Whether Redis answers now."""
    client = connect(settings)
    try:
        with away():
            await client.ping()
    except StreamsAway:
        return False
    finally:
        await client.aclose()
    return True


def entries(answer: Any) -> list[tuple[str, str, dict[Any, Any]]]:
    """(stream, entry id, fields) of a read; an entry that was deleted meanwhile has no fields."""
    return [(stream, entry, fields or {}) for stream, items in answer or () for entry, fields in items]


class RedisPublisher:
    """Puts hints into the streams of the three priorities; see `relay.Publisher`."""

    def __init__(self, settings: RedisSettings) -> None:
        self._client = connect(settings)

    async def out(self) -> Out:
        """Hints in the streams; those that a worker is looking at are out, but not unread."""
        with away():
            async with self._client.pipeline(transaction=False) as pipe:
                for stream in STREAMS.values():
                    pipe.xlen(stream)
                    pipe.xpending(stream, GROUP)
                answers = await pipe.execute(raise_on_error=False)
            for answer in answers[::2]:
                if isinstance(answer, Exception):
                    raise answer
        total = sum(answers[::2])
        taken = sum(answer["pending"] for answer in answers[1::2] if isinstance(answer, dict))  # no group: none taken
        return Out(total, max(0, total - taken))

    async def publish(self, hints: Sequence[tuple[JobId, Priority, str | None]]) -> None:
        """Append each to its priority's stream."""
        with away():
            async with self._client.pipeline(transaction=False) as pipe:
                for job_id, priority, traceparent in hints:
                    fields: dict[Any, Any] = {"id": str(job_id)}
                    if traceparent:
                        fields["traceparent"] = traceparent
                    pipe.xadd(STREAMS[priority], fields, maxlen=MAX_HINTS, approximate=True)
                await pipe.execute()

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()
