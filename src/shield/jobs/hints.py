"""Hints: which job a worker should look at next, through Redis Streams.

A hint is a job's id. The relay publishes a bounded number of them, workers take one when they have a free slot, ask
PostgreSQL for the job, and delete the hint; if the database says no, that is the end of it. Nothing is reclaimed here: a
hint that died with its reader is only removed, and the relay, which sees that the job still waits, publishes another.

Streams are read by priority; every tenth look goes the other way round, so that hints of low priority are not left lying.
While Redis is away `take` says so at once and a background task looks for it; a group that was wiped is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import structlog

from shield.jobs.model import JobId, WorkerId
from shield.jobs.streams import GROUP, STREAMS, StreamsAway, away, blocking, connect, entries
from shield.resilience.waiting import wait
from shield.settings import JobSettings, RedisSettings

log = structlog.get_logger(__name__)

OTHER_WAY_EVERY = 10
"""One of so many looks begins with the low priority."""
_BATCH = 100


@dataclass(frozen=True)
class Hint:
    """A job that may be there to run; who took it says `done`."""

    job_id: JobId
    stream: str
    entry: str
    traceparent: str | None = None


class Hints(Protocol):
    """Where a worker hears of jobs."""

    @property
    def there(self) -> bool:
        """Whether hints can be had; if not, look in the database."""

    async def keep(self) -> None:
        """Run beside the worker until cancelled: connect, connect again, clean up."""

    async def take(self, stop: asyncio.Event) -> Hint | None:
        """The next hint, waiting about a second for one; None if there is none, Redis is away, or `stop` is set."""

    async def done(self, hint: Hint) -> None:
        """It was looked at; nobody needs it any more."""

    async def give_back(self, hint: Hint) -> None:
        """It could not be looked at: let it be taken again."""

    async def close(self) -> None:
        """Let others have what was taken and not looked at."""


class RedisHints:
    """A member of the consumer group; one for each worker."""

    def __init__(self, redis: RedisSettings, jobs: JobSettings, consumer: WorkerId) -> None:
        self._redis, self._jobs, self._consumer = redis, jobs, consumer
        self._client = connect(redis)
        self._there = False
        self._away_told = False
        self._broken = asyncio.Event()
        self._looks = 0

    @property
    def there(self) -> bool:
        """Whether the last word from Redis was a good one."""
        return self._there

    async def keep(self) -> None:
        """Connect, look for a Redis that went away, and remove hints that died with their readers."""
        while True:
            self._broken.clear()
            try:
                with away():
                    await self._make_groups()
                    await self._clean()
                self._found()
                await wait(self._broken, self._jobs.lease.total_seconds() * random.uniform(0.5, 1))  # noqa: S311 - jitter
            except StreamsAway as error:
                self._lost(error)
            if not self._there:
                await asyncio.sleep(self._jobs.relay.total_seconds() * random.uniform(0.5, 1))  # noqa: S311

    async def take(self, stop: asyncio.Event) -> Hint | None:
        """The next hint; see `Hints.take`."""
        reading, stopping = asyncio.ensure_future(self._read()), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # What Redis hands to a read that is cut off here is ours without our knowing: `close` puts it back.
            for task in (reading, stopping):
                task.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)
        if reading.cancelled():
            return None
        try:
            return reading.result()
        except StreamsAway as error:
            self._lost(error)
            return None

    async def done(self, hint: Hint) -> None:
        """Acknowledge and delete; if Redis is away just now, a later clean-up does."""
        try:
            with away():
                await self._remove(hint.stream, [hint.entry])
        except StreamsAway as error:
            self._lost(error)

    async def give_back(self, hint: Hint) -> None:
        """Put it behind the others; if Redis is away just now, the relay publishes the job again."""
        try:
            with away():
                await self._put_back(hint.stream, hint.entry, {"id": str(hint.job_id), "traceparent": hint.traceparent or ""})
        except StreamsAway as error:
            self._lost(error)

    async def close(self) -> None:
        """Put back what was taken and not looked at, and leave the group."""
        with contextlib.suppress(StreamsAway, TimeoutError), away():
            async with asyncio.timeout(self._redis.timeout.total_seconds() if self._there else 0):
                own = await self._client.xreadgroup(GROUP, self._consumer, dict.fromkeys(STREAMS.values(), "0"), count=_BATCH)
                for stream, entry, fields in entries(own):
                    await self._put_back(stream, entry, fields)
                for stream in STREAMS.values():
                    await self._client.xgroup_delconsumer(stream, GROUP, self._consumer)
        self._there = False
        await self._client.aclose()

    # -- reading ------------------------------------------------------------------------------------------------------

    async def _read(self) -> Hint | None:
        self._looks += 1
        order = list(STREAMS.values())
        if self._looks % OTHER_WAY_EVERY == 0:
            order.reverse()
        try:
            with away():
                for stream in order:
                    if hint := await self._accept(await self._group_read([stream])):
                        return hint
                return await self._accept(await self._group_read(order, block=blocking(self._redis)))
        except StreamsAway as error:
            if "NOGROUP" not in str(error.__cause__):
                raise
            with away():  # Redis lost its data; what was in it comes again by the relay
                await self._make_groups()
            return None

    async def _group_read(self, streams: Sequence[str], block: int | None = None) -> Any:
        return await self._client.xreadgroup(GROUP, self._consumer, dict.fromkeys(streams, ">"), count=1, block=block)

    async def _accept(self, answer: Any) -> Hint | None:
        """The first readable hint of an answer; a read of several streams may have brought one of each: the others go back."""
        hint = None
        for stream, entry, fields in entries(answer):
            if hint is not None:
                await self._put_back(stream, entry, fields)
            elif (job_id := _job_id(fields)) is None:
                await self._remove(stream, [entry])
            else:
                hint = Hint(job_id, stream, entry, fields.get("traceparent") or None)
        return hint

    async def _put_back(self, stream: str, entry: str, fields: dict[Any, Any]) -> None:
        async with self._client.pipeline(transaction=True) as pipe:
            if fields:
                pipe.xadd(stream, fields)
            pipe.xack(stream, GROUP, entry)
            pipe.xdel(stream, entry)
            await pipe.execute()

    # -- upkeep -------------------------------------------------------------------------------------------------------

    async def _make_groups(self) -> None:
        from redis.exceptions import ResponseError

        for stream in STREAMS.values():
            try:
                await self._client.xgroup_create(stream, GROUP, "0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):  # it is there already
                    raise

    async def _clean(self) -> None:
        """Remove hints whose readers were silent for two leases, and readers that were silent for twenty."""
        lease = int(self._jobs.lease.total_seconds() * 1000)
        for stream in STREAMS.values():
            answer = await self._client.xautoclaim(stream, GROUP, self._consumer, 2 * lease, count=_BATCH, justid=True)
            await self._remove(stream, list(answer))
            for consumer in await self._client.xinfo_consumers(stream, GROUP):
                if consumer["idle"] > 20 * lease and not consumer["pending"]:
                    await self._client.xgroup_delconsumer(stream, GROUP, consumer["name"])

    async def _remove(self, stream: str, ids: Sequence[str]) -> None:
        if ids:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.xack(stream, GROUP, *ids)
                pipe.xdel(stream, *ids)
                await pipe.execute()

    def _found(self) -> None:
        if self._away_told:
            log.info("hints.back")
        self._there, self._away_told = True, False

    def _lost(self, error: StreamsAway) -> None:
        if not self._away_told:
            log.warning("hints.away", error=str(error), advice="jobs are looked for in the database meanwhile")
        self._there, self._away_told = False, True
        self._broken.set()


def _job_id(fields: dict[str, str]) -> JobId | None:
    try:
        return JobId(UUID(fields.get("id", "")))
    except ValueError:
        return None
