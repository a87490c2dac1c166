"""A short failure of PostgreSQL or Redis is sat out; a lasting or meaningful one is passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest
from psycopg import errors
from redis.exceptions import ConnectionError as RedisDown
from redis.exceptions import ResponseError
from sqlalchemy.exc import DBAPIError

from shield.errors import DatabaseUnavailable, UnknownJob
from shield.resilience import retry, transient


class Pauses:
    """Records the pauses instead of taking them."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, pause: float) -> None:
        self.taken.append(pause)


def failing(*failures: BaseException) -> Callable[[], Awaitable[str]]:
    left = list(failures)

    async def fn() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return fn


async def test_short_failures_are_sat_out_with_growing_jittered_pauses() -> None:
    pauses = Pauses()
    failures = [ConnectionResetError() for _ in range(9)]
    assert await retry(failing(*failures), 10, 0.1, 1.0, sleep=pauses) == "done"
    assert len(pauses.taken) == 9
    assert all(0 <= pause <= min(1.0, 0.1 * 2**n) for n, pause in enumerate(pauses.taken))
    assert len(set(pauses.taken)) > 1


async def test_the_last_error_is_raised_when_the_attempts_are_used_up() -> None:
    pauses = Pauses()
    with pytest.raises(ConnectionResetError, match="third"):
        await retry(failing(ConnectionResetError("1"), ConnectionResetError("2"), ConnectionResetError("third")), 3, 0.1, 1, sleep=pauses)
    assert len(pauses.taken) == 2


async def test_an_error_that_does_not_pass_by_itself_is_raised_at_once() -> None:
    pauses = Pauses()
    with pytest.raises(UnknownJob):
        await retry(failing(UnknownJob()), 5, 0.1, 1, sleep=pauses)
    assert pauses.taken == []


async def test_the_pause_a_server_asks_for_is_kept_up_to_the_cap() -> None:
    pauses = Pauses()
    await retry(failing(DatabaseUnavailable(retry_after=0.9), DatabaseUnavailable(retry_after=60)), 3, 0.001, 1, sleep=pauses)
    assert pauses.taken == [0.9, 1]


async def test_cancellation_passes_straight_through() -> None:
    with pytest.raises(asyncio.CancelledError):
        await retry(failing(asyncio.CancelledError()), 5, 0.1, 1, sleep=Pauses())


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (TimeoutError(), True),
        (RedisDown(), True),
        (ResponseError(), False),
        (DatabaseUnavailable(), True),
        (ValueError(), False),
        (psycopg.OperationalError("no connection"), True),
        (psycopg.ProgrammingError("0 placeholders"), False),
        (errors.AdminShutdown(), True),
        (errors.CannotConnectNow(), True),
        (errors.SerializationFailure(), True),
        (errors.DeadlockDetected(), True),
        (errors.ConnectionFailure(), True),
        (errors.QueryCanceled(), False),
        (errors.UniqueViolation(), False),
        (DBAPIError("SELECT", {}, errors.AdminShutdown()), True),
        (DBAPIError("SELECT", {}, errors.UndefinedTable()), False),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_passes_by_itself(error: Exception, passes: bool) -> None:
    assert transient(error) is passes
