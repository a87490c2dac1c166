"""Retries with full jitter for PostgreSQL and Redis: a short failure is sat out, a long one is passed on.

No breaker stands before these two, since refusing to claim, renew or finish a job because others failed would turn a hiccup
into lost leases. What is retried must be safe to repeat: one transaction, or a read.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shield.errors import ShieldError

T = TypeVar("T")

_PASSING = ("08", "40001", "40P01", "53300", "55P03", "57P01", "57P02", "57P03")
"""SQLSTATEs that pass by themselves: connection lost, serialization failure, deadlock, no connection free, lock not available,
server stopping or starting. A statement cut off by its time limit (57014) is not one: it would only be cut off again."""


def transient(error: Exception) -> bool:
    """Whether an error of PostgreSQL, Redis or the network passes by itself."""
    if isinstance(error, ShieldError):
        return error.retryable
    if isinstance(error, OSError):
        return True
    import psycopg
    from redis.exceptions import ConnectionError as RedisDown
    from redis.exceptions import TimeoutError as RedisSlow

    if isinstance(error, RedisDown | RedisSlow):
        return True
    cause = getattr(error, "orig", None) or error  # SQLAlchemy wraps the driver's error
    if not isinstance(cause, psycopg.Error):
        return False
    if cause.sqlstate is None:  # the server did not get to speak
        return isinstance(cause, psycopg.OperationalError)
    return cause.sqlstate.startswith(_PASSING)


async def retry(
    fn: Callable[[], Awaitable[T]],
    attempts: int,
    base: float,
    cap: float,
    *,
    when: Callable[[Exception], bool] = transient,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Call `fn` up to `attempts` times while it fails with an error for which `when` holds; then the last error is raised.

    The n-th pause is drawn evenly from [0, min(`cap`, `base` * 2**n)] seconds, so many callers do not come back at once; where
    the error itself asks for a pause (`retry_after`), it is at least that, up to `cap`. Cancellation passes straight through.
    """
    for attempt in range(attempts - 1):
        try:
            return await fn()
        except Exception as error:  # the caller's `when` decides what is tried again; all else passes on
            if not when(error):
                raise
            asked = getattr(error, "retry_after", None) or 0.0
        pause = random.uniform(0, min(cap, base * 2**attempt))  # noqa: S311  spread, not secrecy
        await sleep(max(pause, min(asked, cap)))
    return await fn()
