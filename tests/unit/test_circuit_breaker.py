"""A failing dependency is left alone at no cost, one probe asks again, and only true failures count."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from structlog.testing import capture_logs

from shield.errors import (
    CircuitOpen,
    DependencyMisconfigured,
    DependencyRejected,
    DependencyThrottled,
    DependencyUnavailable,
    InternalError,
    QueueFull,
    TooManyPending,
    leaf_errors,
)
from shield.resilience import SERVICES, Breakers, dependency_error
from shield.settings import BreakerSettings, seconds

THRESHOLD, PAUSE = 3, 60.0


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    return Breakers(BreakerSettings(threshold=THRESHOLD, pause=seconds(PAUSE)), clock)


def fails(error: BaseException | None = None) -> Callable[[], Awaitable[None]]:
    async def fn() -> None:
        raise error or DependencyUnavailable()

    return fn


async def works() -> str:
    return "answer"


async def attempt(breakers: Breakers, error: BaseException | None = None, service: str = "llm") -> None:
    with pytest.raises(type(error) if error else DependencyUnavailable):
        await breakers.call(service, fails(error))


async def trip(breakers: Breakers) -> None:
    for _ in range(THRESHOLD):
        await attempt(breakers)
    assert breakers.states()["llm"] == 2


class Held:
    """A call that ends when the test says so."""

    def __init__(self, breakers: Breakers, service: str = "llm") -> None:
        self.begun = asyncio.Event()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(breakers.call(service, self._run))

    async def _run(self) -> None:
        self.begun.set()
        await self._end

    async def succeed(self) -> None:
        self._end.set_result(None)
        await self.task

    async def fail(self) -> None:
        self._end.set_exception(DependencyUnavailable())
        with pytest.raises(DependencyUnavailable):
            await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def held(breakers: Breakers) -> Held:
    call = Held(breakers)
    await call.begun.wait()
    return call


class TestOpening:
    async def test_a_result_passes_through(self, breakers: Breakers) -> None:
        assert await breakers.call("qdrant", works) == "answer"

    async def test_failures_in_a_row_open_the_circuit_and_the_refusal_says_for_how_long(self, breakers: Breakers, clock: Clock) -> None:
        await trip(breakers)
        clock.now += 15
        with pytest.raises(CircuitOpen) as refused:
            await breakers.call("llm", works)
        assert refused.value.retry_after == pytest.approx(PAUSE - 15)
        assert refused.value.details == {"service": "llm"}

    async def test_a_success_between_failures_starts_the_count_again(self, breakers: Breakers) -> None:
        for _ in range(4):
            await attempt(breakers)
            await attempt(breakers)
            await breakers.call("llm", works)
        assert breakers.states()["llm"] == 0

    async def test_one_open_circuit_leaves_the_others_alone(self, breakers: Breakers) -> None:
        await trip(breakers)
        assert breakers.states() == {**dict.fromkeys(SERVICES, 0), "llm": 2}
        assert await breakers.call("qdrant", works) == "answer"

    async def test_an_open_circuit_does_not_call_the_dependency(self, breakers: Breakers) -> None:
        await trip(breakers)
        called = False

        async def fn() -> None:
            nonlocal called
            called = True

        with pytest.raises(CircuitOpen):
            await breakers.call("llm", fn)
        assert not called

    async def test_failures_of_calls_side_by_side_count_too(self, breakers: Breakers) -> None:
        calls = [await held(breakers) for _ in range(20)]
        for call in calls:
            await call.fail()
        assert breakers.states()["llm"] == 2

    def test_every_dependency_of_the_design_has_its_circuit(self, breakers: Breakers) -> None:
        assert set(breakers.states()) == set(SERVICES) == {"orchestrator", "qdrant", "embedding", "shadow", "llm"}


class TestWhatAnErrorMeans:
    @pytest.mark.parametrize(
        "error", [TimeoutError(), ConnectionResetError(), RuntimeError("bug"), DependencyUnavailable(), InternalError()]
    )
    async def test_failures_and_bugs_count(self, breakers: Breakers, error: Exception) -> None:
        for _ in range(THRESHOLD):
            await attempt(breakers, error)
        assert breakers.states()["llm"] == 2

    @pytest.mark.parametrize(
        "error", [DependencyRejected(), TooManyPending(), *(e() for e in leaf_errors().values() if not e.retryable)], ids=str
    )
    async def test_an_answer_about_the_input_is_a_success(self, breakers: Breakers, error: Exception) -> None:
        for _ in range(THRESHOLD - 1):
            await attempt(breakers)
        await attempt(breakers, error)
        for _ in range(THRESHOLD - 1):
            await attempt(breakers)
        assert breakers.states()["llm"] == 0

    async def test_a_wrong_credential_opens_at_once(self, breakers: Breakers) -> None:
        await attempt(breakers, DependencyMisconfigured())
        assert breakers.states()["llm"] == 2
        with pytest.raises(CircuitOpen):
            await breakers.call("llm", works)

    async def test_a_misconfigured_dependency_shows_until_it_answers_again(self, breakers: Breakers, clock: Clock) -> None:
        await attempt(breakers, DependencyMisconfigured())
        assert [name for name, refused in breakers.misconfigured().items() if refused] == ["llm"]
        clock.now += PAUSE
        await attempt(breakers, DependencyUnavailable())  # says nothing about the credential
        assert breakers.misconfigured()["llm"]
        clock.now += PAUSE
        await breakers.call("llm", works)
        assert not any(breakers.misconfigured().values())

    async def test_a_change_of_state_is_logged_once_and_a_wrong_credential_as_an_error(self, breakers: Breakers, clock: Clock) -> None:
        with capture_logs() as logged:
            await trip(breakers)
            for _ in range(10):
                with pytest.raises(CircuitOpen):
                    await breakers.call("llm", works)
            clock.now += PAUSE
            await breakers.call("llm", works)
            await attempt(breakers, DependencyMisconfigured("`llm` refuses our credential."))
        assert [(entry["log_level"], entry["event"]) for entry in logged] == [
            ("warning", "circuit.opened"),
            ("info", "circuit.closed"),
            ("error", "dependency.misconfigured"),
        ]

    @pytest.mark.parametrize("error", [DependencyThrottled(retry_after=3), QueueFull(), asyncio.CancelledError()], ids=repr)
    async def test_throttling_and_cancellation_are_neither_success_nor_failure(self, breakers: Breakers, error: BaseException) -> None:
        for _ in range(50):
            await attempt(breakers, error)
        assert breakers.states()["llm"] == 0
        for _ in range(THRESHOLD - 1):
            await attempt(breakers)
        await attempt(breakers, error)
        await attempt(breakers)
        assert breakers.states()["llm"] == 2  # the neutral call did not reset the count

    async def test_trouble_of_another_service_is_an_answer_of_this_one(self, breakers: Breakers) -> None:
        for error in [dependency_error("llm", 401), dependency_error("qdrant", 503)] * THRESHOLD:
            await attempt(breakers, error, service="orchestrator")
        assert breakers.states()["orchestrator"] == 0

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            *((s, DependencyRejected) for s in (400, 413, 422)),
            *((s, DependencyMisconfigured) for s in (401, 403, 404)),
            (429, DependencyThrottled),
            *((s, DependencyUnavailable) for s in (302, 408, 409, 500, 502, 503, 504)),
        ],
    )
    def test_a_status_means_the_same_everywhere(self, status: int, expected: type[Exception]) -> None:
        error = dependency_error("embedding", status, 7.0)
        assert type(error) is expected
        assert error.details == {"service": "embedding"}
        assert error.retry_after == (7.0 if error.retryable and expected is not DependencyMisconfigured else None)


class TestRecovery:
    async def test_one_probe_of_500_callers_goes_out(self, breakers: Breakers, clock: Clock) -> None:
        await trip(breakers)
        clock.now += PAUSE
        assert breakers.states()["llm"] == 1
        begun, refused, everybody_else_was_refused = 0, 0, asyncio.Event()

        async def fn() -> None:
            nonlocal begun
            begun += 1
            await everybody_else_was_refused.wait()

        async def caller() -> None:
            nonlocal refused
            try:
                await breakers.call("llm", fn)
            except CircuitOpen:
                refused += 1
                if refused == 499:
                    everybody_else_was_refused.set()

        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            for _ in range(500):
                tasks.create_task(caller())
        assert (begun, refused) == (1, 499)
        assert breakers.states()["llm"] == 0

    async def test_a_failed_probe_opens_for_another_pause(self, breakers: Breakers, clock: Clock) -> None:
        await trip(breakers)
        clock.now += PAUSE + 1
        await attempt(breakers)
        assert breakers.states()["llm"] == 2
        clock.now += PAUSE - 1
        with pytest.raises(CircuitOpen):
            await breakers.call("llm", works)

    async def test_a_cancelled_or_throttled_probe_leaves_it_half_open_for_the_next(self, breakers: Breakers, clock: Clock) -> None:
        await trip(breakers)
        clock.now += PAUSE
        await (await held(breakers)).cancel()
        await attempt(breakers, DependencyThrottled())
        assert breakers.states()["llm"] == 1
        assert await breakers.call("llm", works) == "answer"
        assert breakers.states()["llm"] == 0

    async def test_an_answer_to_the_probe_closes_even_if_it_refuses_the_input(self, breakers: Breakers, clock: Clock) -> None:
        await trip(breakers)
        clock.now += PAUSE
        await attempt(breakers, DependencyRejected())
        assert breakers.states()["llm"] == 0

    async def test_a_late_success_of_a_call_begun_before_the_trip_decides_nothing(self, breakers: Breakers, clock: Clock) -> None:
        early, earlier = await held(breakers), await held(breakers)
        await trip(breakers)
        await early.succeed()
        assert breakers.states()["llm"] == 2
        clock.now += PAUSE
        probe = await held(breakers)
        await earlier.succeed()
        assert breakers.states()["llm"] == 1
        with pytest.raises(CircuitOpen):  # the probe's place is still taken
            await breakers.call("llm", works)
        await probe.fail()
        assert breakers.states()["llm"] == 2

    async def test_late_failures_of_calls_begun_before_the_trip_do_not_open_a_recovered_circuit(
        self, breakers: Breakers, clock: Clock
    ) -> None:
        old = [await held(breakers) for _ in range(THRESHOLD * 2)]
        await trip(breakers)
        clock.now += PAUSE
        await breakers.call("llm", works)
        for call in old:
            await call.fail()
        assert breakers.states()["llm"] == 0


class TestCost:
    async def test_100_000_refusals_retain_nothing(self, breakers: Breakers) -> None:
        await trip(breakers)

        async def refuse(times: int) -> None:
            for _ in range(times):
                try:
                    await breakers.call("llm", works)
                except CircuitOpen:
                    continue
                raise AssertionError("the circuit let a call through")

        await refuse(1000)
        gc.collect()
        before_objects = len(gc.get_objects())
        await refuse(99_000)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await refuse(1000)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        gc.collect()
        assert after - before < 10_000
        assert len(gc.get_objects()) - before_objects < 100

    async def test_a_refusal_takes_less_than_a_millisecond(self, breakers: Breakers) -> None:
        await trip(breakers)
        took = []
        for _ in range(5000):
            start = time.perf_counter()
            try:
                await breakers.call("llm", works)
            except CircuitOpen:
                took.append(time.perf_counter() - start)
        took.sort()
        assert took[len(took) * 99 // 100] < 0.001

    async def test_states_can_be_read_from_another_thread(self, breakers: Breakers) -> None:
        seen: list[dict[str, int]] = []
        thread = threading.Thread(target=lambda: seen.append(breakers.states()))
        thread.start()
        thread.join(5)
        assert seen == [dict.fromkeys(SERVICES, 0)]


class CircuitMachine(RuleBasedStateMachine):
    """Any interleaving of calls against a plain model of the promises."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.breakers = Breakers(BreakerSettings(threshold=THRESHOLD, pause=seconds(PAUSE)), self.clock)
        self.calls: list[tuple[Held, bool, int]] = []
        self.state, self.failures, self.opened_at, self.period = "closed", 0, 0.0, 0

    def teardown(self) -> None:
        async def cancel_all() -> None:
            for call, _, _ in self.calls:
                await call.cancel()

        self.loop.run_until_complete(cancel_all())
        self.loop.close()

    def _enter(self, state: str) -> None:
        self.state, self.failures, self.period = state, 0, self.period + 1
        self.opened_at = self.clock.now

    @property
    def _probe_is_out(self) -> bool:
        return any(probe and period == self.period for _, probe, period in self.calls)

    @rule()
    def begin(self) -> None:
        if self.state == "open" and self.clock.now >= self.opened_at + PAUSE:
            self._enter("half-open")
        admitted = self.state == "closed" or (self.state == "half-open" and not self._probe_is_out)

        async def start() -> Held | None:
            call = Held(self.breakers)
            waiter = asyncio.ensure_future(call.begun.wait())
            await asyncio.wait([waiter, call.task], return_when=asyncio.FIRST_COMPLETED)
            if call.task.done():
                waiter.cancel()
                assert isinstance(call.task.exception(), CircuitOpen)
                call._end.cancel()
                return None
            return call

        call = self.loop.run_until_complete(start())
        assert (call is not None) == admitted
        if call:
            self.calls.append((call, self.state == "half-open", self.period))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), how=st.sampled_from(["succeed", "fail", "cancel"]))
    def end(self, data: st.DataObject, how: str) -> None:
        call, _, period = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        self.loop.run_until_complete(getattr(call, how)())
        if period != self.period or how == "cancel":
            return
        if how == "succeed":
            self.failures = 0
            if self.state == "half-open":
                self._enter("closed")
        else:
            self.failures += 1
            if self.state == "half-open" or self.failures >= THRESHOLD:
                self._enter("open")

    @rule(passed=st.floats(0, PAUSE * 1.5))
    def time_passes(self, passed: float) -> None:
        self.clock.now += passed

    @invariant()
    def the_gauge_tells_the_truth(self) -> None:
        lapsed = self.clock.now >= self.opened_at + PAUSE
        expected = {"closed": 0, "half-open": 1, "open": 1 if lapsed else 2}[self.state]
        assert self.breakers.states()["llm"] == expected


TestCircuitMachine = CircuitMachine.TestCase
TestCircuitMachine.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
