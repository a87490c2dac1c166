"""How many Jobs: a bucket and places."""

from __future__ import annotations

import asyncio

from shield_operator.cluster import Key
from shield_operator.ingestjobs.limits import Bucket, Places
from tests.unit.operator.clock import Clock

A, B, C = Key("team", "a"), Key("team", "b"), Key("other", "c")


class TestBucket:
    async def test_a_burst_is_free_and_then_turns_come_in_order(self) -> None:
        clock = Clock()
        bucket = Bucket(2, 2, clock=clock, sleep=clock.sleep)
        assert (await bucket.take(), await bucket.take()) == (0, 0)
        waits = [asyncio.create_task(bucket.take()) for _ in range(2)]
        await asyncio.sleep(0)
        clock.tick(0.5)
        await asyncio.sleep(0)
        assert [task.done() for task in waits] == [True, False]
        clock.tick(0.5)
        assert await asyncio.gather(*waits) == [0.5, 1.0]

    async def test_it_never_holds_more_than_a_burst(self) -> None:
        clock = Clock()
        bucket = Bucket(2, 2, clock=clock, sleep=clock.sleep)
        clock.tick(1000)
        assert [await bucket.take() for _ in range(2)] == [0, 0]
        third = asyncio.create_task(bucket.take())
        await asyncio.sleep(0)
        assert not third.done()
        clock.tick(1)
        await third


class TestPlaces:
    def test_no_limit_means_always_a_place(self) -> None:
        places = Places(0)
        assert all(places.reserve(key) for key in (A, B, C))
        assert places.job("team", "u", runs=False) is None
        places.release(A)

    def test_a_reserved_place_is_taken_and_namespaces_are_apart(self) -> None:
        places = Places(1)
        assert (places.reserve(A), places.reserve(A), places.reserve(B), places.reserve(C)) == (True, True, False, True)
        places.release(A)
        assert places.reserve(B)

    def test_whoever_waited_first_is_next_when_a_job_ends(self) -> None:
        places = Places(1)
        places.job("team", "u", runs=True)
        assert not places.reserve(A)
        assert not places.reserve(B)
        assert places.job("team", "u", runs=False) == A
        assert places.job("team", "u", runs=False) is None
        places.job("team", "v", runs=True)
        assert places.job("team", "v", runs=False) == B
