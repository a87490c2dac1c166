"""Hints on a real Valkey: each is taken once, by priority, and whatever happens to Redis is survived."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from shield.jobs.choice import Out
from shield.jobs.hints import OTHER_WAY_EVERY, Hint, RedisHints
from shield.jobs.model import JobId, Priority, WorkerId
from shield.jobs.streams import GROUP, STREAMS, RedisPublisher, StreamsAway, away
from tests.integration.jobs.support import job_settings
from tests.integration.promises.support import redis_settings, until
from tests.peers.valkey import Valkey

NORMAL = STREAMS[Priority.NORMAL]
Join = Callable[..., RedisHints]


@pytest.fixture
async def join(valkey: Valkey) -> AsyncIterator[Join]:
    """Makes members of the group, with nothing running beside them."""
    members: list[RedisHints] = []

    def made(name: str = "me", **settings: object) -> RedisHints:
        members.append(RedisHints(redis_settings(valkey), job_settings(**settings), WorkerId(name)))
        return members[-1]

    yield made
    for member in members:
        await member.close()


@pytest.fixture
async def publisher(valkey: Valkey) -> AsyncIterator[RedisPublisher]:
    publisher = RedisPublisher(redis_settings(valkey))
    yield publisher
    await publisher.close()


@asynccontextmanager
async def kept(member: RedisHints) -> AsyncIterator[RedisHints]:
    """The member with its upkeep running, and connected."""
    keeping = asyncio.create_task(member.keep())
    try:
        await there(member)
        yield member
    finally:
        keeping.cancel()


async def there(member: RedisHints, expected: bool = True) -> None:
    async def look() -> bool:
        return member.there

    await until(look, lambda found: found == expected)


async def publish(publisher: RedisPublisher, priority: Priority = Priority.NORMAL, count: int = 1) -> list[JobId]:
    jobs = [JobId(uuid4()) for _ in range(count)]
    await publisher.publish([(job, priority, None) for job in jobs])
    return jobs


async def take(member: RedisHints) -> Hint:
    """The next hint; there must be one."""
    hint = await member.take(asyncio.Event())
    assert hint is not None
    await member.done(hint)
    return hint


class TestTaking:
    async def test_each_hint_is_taken_by_one_worker_and_gone_when_it_was_looked_at(self, join: Join, publisher: RedisPublisher) -> None:
        jobs = await publish(publisher, count=4)
        one, two = join("one"), join("two")
        async with kept(one), kept(two):
            assert await publisher.out() == Out(total=4, unread=4)
            hint = await one.take(asyncio.Event())
            assert hint is not None
            assert await publisher.out() == Out(total=4, unread=3)
            await one.done(hint)
            assert await publisher.out() == Out(total=3, unread=3)
            taken = [hint.job_id, *[(await take(member)).job_id for member in (two, one, two)]]
        assert taken == jobs
        assert await publisher.out() == Out()

    async def test_high_goes_first_and_one_of_ten_looks_begins_with_low(self, join: Join, publisher: RedisPublisher) -> None:
        low, normal = await publish(publisher, Priority.LOW, 2), await publish(publisher)
        high = await publish(publisher, Priority.HIGH, OTHER_WAY_EVERY)
        async with kept(join()) as member:
            order = [(await take(member)).job_id for _ in range(len(low + normal + high))]
        assert order == [*high[:9], low[0], high[9], normal[0], low[1]]

    async def test_the_trace_comes_along(self, join: Join, publisher: RedisPublisher) -> None:
        await publisher.publish([(JobId(uuid4()), Priority.HIGH, "00-abc")])
        async with kept(join()) as member:
            assert (await take(member)).traceparent == "00-abc"

    async def test_a_hint_that_comes_while_waiting_is_taken_at_once(self, join: Join, publisher: RedisPublisher) -> None:
        async with kept(join()) as member:
            waiting = asyncio.create_task(member.take(asyncio.Event()))
            await asyncio.sleep(0)
            (job,) = await publish(publisher)
            hint = await waiting
        assert hint is not None
        assert hint.job_id == job

    async def test_hints_that_come_together_are_taken_one_by_one(self, join: Join, publisher: RedisPublisher, valkey: Valkey) -> None:
        async with kept(join()) as member:
            with valkey.client() as client, client.pipeline(transaction=True) as pipe:
                for stream in STREAMS.values():
                    pipe.xadd(stream, {"id": str(uuid4())})
                waiting = asyncio.create_task(member.take(asyncio.Event()))
                await asyncio.to_thread(pipe.execute)
            assert await waiting is not None
            assert (await publisher.out()).total == 3
            assert {await take(member), await take(member)}
        assert (await publisher.out()).total == 1  # the first one, which nobody has looked at, went back

    async def test_what_is_no_hint_is_removed(self, join: Join, publisher: RedisPublisher, valkey: Valkey) -> None:
        with valkey.client() as client:
            for fields in ({"id": "x"}, {"other": "1"}, {"id": "\ud800".encode("utf-8", "surrogatepass")}):
                client.xadd(NORMAL, fields)
        (job,) = await publish(publisher)
        async with kept(join()) as member:
            assert [hint.job_id for _ in range(4) if (hint := await member.take(asyncio.Event()))] == [job]
        assert (await publisher.out()).total == 1  # the good one, of which nobody said `done`

    async def test_a_stopping_worker_waits_no_longer_and_gives_back_what_it_took(self, join: Join, publisher: RedisPublisher) -> None:
        await publish(publisher)
        member, stop = join(), asyncio.Event()
        async with kept(member):
            assert await member.take(stop) is not None
            waiting = asyncio.create_task(member.take(stop))
            await asyncio.sleep(0)
            stop.set()
            async with asyncio.timeout(0.4):
                assert await waiting is None
            await member.close()
        assert await publisher.out() == Out(total=1, unread=1)

    async def test_a_hint_given_back_is_taken_again(self, join: Join, publisher: RedisPublisher) -> None:
        (job,) = await publish(publisher)
        async with kept(join()) as member:
            hint = await member.take(asyncio.Event())
            assert hint is not None
            await member.give_back(hint)
            assert await publisher.out() == Out(total=1, unread=1)
            assert (await take(member)).job_id == job


class TestTrouble:
    async def test_a_wiped_redis_gets_its_group_again(self, join: Join, publisher: RedisPublisher, valkey: Valkey) -> None:
        async with kept(join()) as member:
            valkey.wipe()
            (job,) = await publish(publisher)
            hints = [await member.take(asyncio.Event()), await member.take(asyncio.Event())]
            assert job in [hint.job_id for hint in hints if hint]
            assert member.there

    async def test_a_redis_that_dies_is_found_again(self, join: Join, publisher: RedisPublisher, valkey: Valkey) -> None:
        async with kept(join()) as member:
            valkey.kill()
            assert await member.take(asyncio.Event()) is None
            assert not member.there
            with pytest.raises(StreamsAway):
                await publisher.out()
            valkey.start()
            await there(member)
            (job,) = await publish(publisher)
            assert (await take(member)).job_id == job

    async def test_a_redis_that_does_not_answer_is_away_within_its_time_limit(self, join: Join, valkey: Valkey) -> None:
        async with kept(join()) as member:
            valkey.pause()
            try:
                async with asyncio.timeout(5):
                    assert await member.take(asyncio.Event()) is None
                assert not member.there
            finally:
                valkey.resume()

    async def test_nothing_of_a_dead_redis_reaches_who_says_done_gives_back_or_leaves(self, join: Join, valkey: Valkey) -> None:
        member, hint = join(), Hint(JobId(uuid4()), NORMAL, "1-1")
        valkey.kill()
        await member.done(hint)
        await member.give_back(hint)
        await member.close()

    async def test_what_died_with_its_reader_is_removed_and_so_is_the_reader(
        self, join: Join, publisher: RedisPublisher, valkey: Valkey
    ) -> None:
        await publish(publisher)
        dead = join("dead")
        async with kept(dead):
            assert await dead.take(asyncio.Event()) is not None
        async with kept(join("alive", lease=0.02)):
            await until(publisher.out, lambda out: out == Out())

            async def names() -> set[str]:
                with valkey.client() as client:
                    return {consumer["name"] for consumer in client.xinfo_consumers(NORMAL, GROUP)}

            await until(names, lambda found: found == {"alive"})


async def test_a_cancellation_that_redis_py_loses_is_raised_all_the_same() -> None:
    async def loses_it() -> None:
        with away():
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        pytest.fail("the cancellation was lost")

    task = asyncio.create_task(loses_it())
    with pytest.raises(asyncio.CancelledError):
        await task
