"""The work queue: nothing is lost, nothing runs twice at once, failures wait."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shield_operator.cluster import Throttled, Unavailable
from shield_operator.metrics import Metrics
from shield_operator.queue import DONE, Backoff, Result, WorkQueue
from tests.unit.operator.clock import Clock


def a_queue(clock: Clock, metrics: Metrics | None = None) -> WorkQueue[str]:
    return WorkQueue("test", metrics or Metrics(), Backoff(base=1, most=8), clock=clock, chance=lambda: 0.0)


class TestKeys:
    def test_a_key_that_waits_is_not_added_twice(self) -> None:
        queue = a_queue(Clock())
        queue.add("a")
        queue.add("a")
        assert queue.take() == "a"
        assert queue.take() is None

    def test_a_key_that_is_added_while_it_runs_comes_again_afterwards_and_not_beside(self) -> None:
        queue = a_queue(Clock())
        queue.add("a")
        queue.take()
        queue.add("a")
        assert queue.take() is None
        queue.done("a")
        assert queue.take() == "a"

    def test_of_two_times_the_earlier_counts(self) -> None:
        clock = Clock()
        queue = a_queue(clock)
        queue.add_after("a", 10)
        queue.add_after("a", 2)
        queue.add_after("a", 5)
        assert queue.promote() == 2
        clock.tick(2)
        queue.promote()
        assert queue.take() == "a"
        queue.done("a")
        clock.tick(100)
        assert queue.promote() is None
        assert queue.take() is None

    def test_failures_in_a_row_double_the_pause_up_to_the_most_and_success_forgets_them(self) -> None:
        queue = a_queue(Clock())
        assert [queue.retry("a") for _ in range(5)] == [1, 2, 4, 8, 8]
        queue.forget("a")
        assert queue.retry("a") == 1

    def test_chance_shortens_a_pause_by_at_most_a_fifth(self) -> None:
        assert Backoff(base=1, most=8).pause(2, 0.999) == pytest.approx(1.6, abs=0.01)

    def test_a_closed_queue_takes_no_more_keys(self) -> None:
        queue = a_queue(Clock())
        queue.close()
        queue.add("a")
        assert queue.idle


class Machine(RuleBasedStateMachine):
    """Against the simplest model: which keys still need a run, which run, and when others are due."""

    keys = st.sampled_from("abc")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = a_queue(self.clock)
        self.wanted: set[str] = set()
        self.running: set[str] = set()
        self.due: dict[str, float] = {}

    @rule(key=keys)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.wanted.add(key)

    @rule(key=keys, seconds=st.integers(1, 20))
    def add_after(self, key: str, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        self.due[key] = min(self.due.get(key, float("inf")), self.clock() + seconds)

    @rule(seconds=st.integers(0, 15))
    def tick(self, seconds: int) -> None:
        self.clock.tick(seconds)
        wait = self.queue.promote()
        for key in [key for key, at in self.due.items() if at <= self.clock()]:
            del self.due[key]
            self.wanted.add(key)
        assert wait == (min(self.due.values()) - self.clock() if self.due else None)

    @rule()
    def take(self) -> None:
        key = self.queue.take()
        assert (key is None) == (not self.wanted - self.running)
        if key is not None:
            assert key in self.wanted - self.running
            self.wanted.discard(key)
            self.running.add(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.queue.done(key)
        self.running.discard(key)

    @invariant()
    def tells_what_waits(self) -> None:
        assert len(self.queue) == len(self.wanted - self.running)
        assert self.queue.idle == (not self.wanted and not self.running)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


class TestRunning:
    async def test_every_key_is_worked_on_and_what_fails_comes_again(self) -> None:
        metrics = Metrics()
        queue: WorkQueue[str] = WorkQueue("test", metrics, Backoff(base=0.001, most=0.01))
        runs: list[str] = []

        async def work(key: str) -> Result:
            runs.append(key)
            if key == "b" and runs.count("b") < 3:
                raise Unavailable("away")
            if runs.count("b") == 3 and runs.count("a"):
                queue.close()
            return DONE

        queue.add("a")
        queue.add("b")
        async with asyncio.timeout(5):
            await queue.run(2, work, limit=1)
        assert (runs.count("a"), runs.count("b")) == (1, 3)
        value = metrics.registry.get_sample_value
        assert value("controller_runtime_reconcile_errors_total", {"controller": "test"}) == 2
        assert value("shield_operator_reconcile_error_causes_total", {"controller": "test", "cause": "unavailable"}) == 2
        assert value("workqueue_retries_total", {"name": "test"}) == 2
        assert value("controller_runtime_reconcile_total", {"controller": "test", "result": "success"}) == 2

    async def test_a_bug_in_a_reconcile_ends_nothing_and_is_counted_as_one(self) -> None:
        metrics = Metrics()
        queue: WorkQueue[str] = WorkQueue("test", metrics, Backoff(base=0.001, most=0.01))

        async def work(key: str) -> Result:
            queue.close()
            raise ZeroDivisionError

        queue.add("a")
        async with asyncio.timeout(5):
            await queue.run(1, work, limit=1)
        assert (
            metrics.registry.get_sample_value("shield_operator_reconcile_error_causes_total", {"controller": "test", "cause": "bug"}) == 1
        )

    async def test_a_reconcile_that_hangs_is_cut_off_and_comes_again(self) -> None:
        metrics = Metrics()
        queue: WorkQueue[str] = WorkQueue("test", metrics, Backoff(base=0.001, most=0.01))
        runs = 0

        async def work(key: str) -> Result:
            nonlocal runs
            runs += 1
            if runs == 1:
                await asyncio.Event().wait()
            queue.close()
            return DONE

        queue.add("a")
        async with asyncio.timeout(5):
            await queue.run(1, work, limit=0.01)
        assert runs == 2
        assert (
            metrics.registry.get_sample_value("shield_operator_reconcile_error_causes_total", {"controller": "test", "cause": "timeout"})
            == 1
        )

    async def test_a_server_that_asks_for_a_pause_gets_it(self) -> None:
        clock = Clock()
        queue = a_queue(clock)

        async def work(key: str) -> Result:
            queue.close()
            raise Throttled("busy", retry_after=30.0)

        queue.add("a")
        async with asyncio.timeout(5):
            await queue.run(1, work, limit=1)
        assert queue.promote() == 30

    async def test_a_result_may_ask_for_another_look(self) -> None:
        queue: WorkQueue[str] = WorkQueue("test", Metrics())
        runs = 0

        async def work(key: str) -> Result:
            nonlocal runs
            runs += 1
            if runs == 2:
                queue.close()
            return Result(after=0.001)

        queue.add("a")
        async with asyncio.timeout(5):
            await queue.run(3, work, limit=1)
        assert runs == 2

    async def test_work_that_runs_may_end_after_the_queue_is_closed(self) -> None:
        queue: WorkQueue[str] = WorkQueue("test", Metrics())
        begun, go = asyncio.Event(), asyncio.Event()

        async def work(key: str) -> Result:
            begun.set()
            await go.wait()
            return DONE

        queue.add("a")
        running = asyncio.create_task(queue.run(1, work, limit=5))
        async with asyncio.timeout(5):
            await begun.wait()
            queue.close()
            settled = asyncio.create_task(queue.settled())
            await asyncio.sleep(0)
            assert not settled.done()
            go.set()
            await settled
            await running
