"""Tokens are counted to the job they are spent for, and no call starts that could pass a job's budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import BudgetExceeded, DependencyRejected, DependencyThrottled, DependencyUnavailable
from shield.jobs.repository import JobRepository
from shield.knowledge.llm import Completion
from shield.knowledge.metering import Ledger, MeteredLlm, Purpose, charged, estimate_tokens
from shield.settings import LlmSettings
from tests.integration.jobs.support import Rows, a_request, job_settings

SETTINGS = LlmSettings(max_tokens=100, timeout=timedelta(seconds=2))
COST = 30
ROOM = estimate_tokens("hi") + 100
"""What a call with the prompt `hi` may cost at most."""


class Model:
    """A language model whose calls end when the test says so."""

    name = "test:model"

    def __init__(self) -> None:
        self.out = 0
        self.calls = 0
        self.error: Exception | None = None
        self.answer = Completion("fine", COST - 10, 10)
        self.gate = asyncio.Event()
        self.gate.set()

    async def complete(self, prompt: str, *, system: str | None = None, json: bool = False, timeout: timedelta | None = None) -> Completion:  # noqa: ASYNC109
        self.calls += 1
        self.out += 1
        try:
            await self.gate.wait()
        finally:
            self.out -= 1
        if self.error:
            raise self.error
        return self.answer

    async def close(self) -> None:
        return


@pytest.fixture
def rows(engine: AsyncEngine) -> Rows:
    return Rows(engine)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def counted() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture
def metered(engine: AsyncEngine, model: Model, counted: list[tuple[str, int, int]]) -> MeteredLlm:
    return MeteredLlm(model, Ledger(engine), SETTINGS, lambda *call: counted.append(call))


async def a_job(engine: AsyncEngine, budget: int | None = None) -> UUID:
    return (await JobRepository(engine, job_settings()).accept(a_request(budget_tokens=budget))).id


async def account(rows: Rows, job: UUID) -> tuple[int, int]:
    """What a job has spent, and how many reservations stand for it."""
    row = (
        await rows.run("SELECT tokens, (SELECT count(*) FROM token_reservations WHERE job_id = j.id) FROM jobs j WHERE id = :id", id=job)
    )[0]
    return row[0], row[1]


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


class TestCounting:
    async def test_each_call_is_counted_to_its_job_and_purpose(
        self, engine: AsyncEngine, rows: Rows, metered: MeteredLlm, counted: list[tuple[str, int, int]]
    ) -> None:
        job, other = await a_job(engine), await a_job(engine)
        await asyncio.gather(*(charged(metered, Purpose.EXTRACT, job).complete("hi") for _ in range(10)))
        await charged(metered, Purpose.SUMMARIZE, other).complete("hi")
        await metered.complete("hi")
        assert (await account(rows, job), await account(rows, other)) == ((10 * COST, 0), (COST, 0))
        assert counted == [("extract", 20, 10)] * 10 + [("summarize", 20, 10), ("answer", 20, 10)]

    async def test_an_endpoint_that_does_not_count_is_counted_by_our_estimate(
        self, engine: AsyncEngine, rows: Rows, metered: MeteredLlm, model: Model
    ) -> None:
        job = await a_job(engine)
        model.answer = Completion("fine", 0, 0)
        await metered.charged(Purpose.EXTRACT, job).complete("hi", system="be brief")
        spent = estimate_tokens("hi") + estimate_tokens("be brief") + estimate_tokens("fine")
        assert await account(rows, job) == (spent, 0)

    @pytest.mark.parametrize(
        ("error", "spent"),
        [(DependencyRejected(service="llm", tokens_in=5, tokens_out=6), 11), (DependencyUnavailable(service="llm"), 0), (ValueError(), 0)],
    )
    @pytest.mark.parametrize("budget", [None, 1000])
    async def test_a_call_that_fails_counts_what_it_is_known_to_have_cost(
        self, engine: AsyncEngine, rows: Rows, metered: MeteredLlm, model: Model, error: Exception, spent: int, budget: int | None
    ) -> None:
        job = await a_job(engine, budget)
        model.error = error
        with pytest.raises(type(error)):
            await metered.charged(Purpose.EXTRACT, job).complete("hi")
        assert await account(rows, job) == (spent, 0)

    async def test_a_job_that_is_gone_costs_nobody(self, metered: MeteredLlm) -> None:
        assert (await metered.charged(Purpose.EXTRACT, UUID(int=1)).complete("hi")).text == "fine"

    async def test_a_job_that_has_ended_is_still_charged(self, engine: AsyncEngine, rows: Rows, metered: MeteredLlm) -> None:
        job = await a_job(engine, 1000)
        await JobRepository(engine, job_settings()).request_cancel("ada", job)  # type: ignore[arg-type]
        await metered.charged(Purpose.EXTRACT, job).complete("hi")
        assert await account(rows, job) == (COST, 0)

    async def test_a_model_that_is_not_metered_stays_itself(self, model: Model) -> None:
        assert charged(model, Purpose.EXTRACT, UUID(int=1)) is model


class TestBudget:
    async def test_no_call_starts_that_could_pass_it(self, engine: AsyncEngine, rows: Rows, metered: MeteredLlm, model: Model) -> None:
        job = await a_job(engine, ROOM + COST)
        llm = metered.charged(Purpose.EXTRACT, job)
        await llm.complete("hi")
        await llm.complete("hi")
        with pytest.raises(BudgetExceeded, match=f"{2 * COST} of {ROOM + COST}"):
            await llm.complete("hi")
        assert (model.calls, await account(rows, job)) == (2, (2 * COST, 0))

    async def test_calls_side_by_side_wait_for_each_other_instead_of_passing_it(
        self, engine: AsyncEngine, rows: Rows, metered: MeteredLlm, model: Model
    ) -> None:
        job = await a_job(engine, 2 * ROOM + 20)  # room for two at once; the real cost leaves room for all six
        llm = metered.charged(Purpose.EXTRACT, job)
        model.gate.clear()
        tasks = [asyncio.create_task(llm.complete("hi")) for _ in range(6)]
        await eventually(lambda: model.out == 2)
        assert await account(rows, job) == (0, 2)
        widest = 0
        model.gate.set()
        while not all(task.done() for task in tasks):
            widest = max(widest, model.out)
            await asyncio.sleep(0.005)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        spent, standing = await account(rows, job)
        assert widest <= 2
        assert standing == 0
        assert spent == COST * sum(isinstance(result, Completion) for result in results)
        assert spent <= 2 * ROOM + 20
        assert all(isinstance(result, Completion | BudgetExceeded) for result in results)

    async def test_many_workers_keep_one_budget(self, engine: AsyncEngine, rows: Rows, model: Model) -> None:
        job = await a_job(engine, 10 * COST + ROOM)
        workers = [MeteredLlm(model, Ledger(engine), SETTINGS, lambda *_: None).charged(Purpose.EXTRACT, job) for _ in range(4)]
        results = await asyncio.gather(*(worker.complete("hi") for worker in workers for _ in range(6)), return_exceptions=True)
        done = sum(isinstance(result, Completion) for result in results)
        assert {type(result) for result in results} == {Completion, BudgetExceeded}
        assert await account(rows, job) == (done * COST, 0)
        assert done == 11

    async def test_a_call_that_found_no_room_in_time_is_put_off_and_costs_nothing(
        self, engine: AsyncEngine, rows: Rows, metered: MeteredLlm, model: Model
    ) -> None:
        job = await a_job(engine, ROOM + 1)
        llm = metered.charged(Purpose.EXTRACT, job)
        model.gate.clear()
        first = asyncio.create_task(llm.complete("hi"))
        await eventually(lambda: model.out == 1)
        with pytest.raises(DependencyThrottled):
            await llm.complete("hi", timeout=timedelta(milliseconds=100))
        model.gate.set()
        await first
        assert await account(rows, job) == (COST, 0)

    async def test_a_cancelled_call_gives_its_reservation_back(
        self, engine: AsyncEngine, rows: Rows, metered: MeteredLlm, model: Model
    ) -> None:
        job = await a_job(engine, 1000)
        model.gate.clear()
        task = asyncio.create_task(metered.charged(Purpose.EXTRACT, job).complete("hi"))
        await eventually(lambda: model.out == 1)
        assert (await account(rows, job))[1] == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await account(rows, job) == (0, 0)

    async def test_the_reservation_of_a_process_that_died_lapses(
        self, engine: AsyncEngine, rows: Rows, metered: MeteredLlm, model: Model
    ) -> None:
        job = await a_job(engine, ROOM + 1)
        await Ledger(engine).reserve(job, ROOM, timedelta(seconds=1))  # and never heard of again
        llm = metered.charged(Purpose.EXTRACT, job)
        with pytest.raises(DependencyThrottled):
            await llm.complete("hi", timeout=timedelta(milliseconds=60))
        await rows.run("UPDATE token_reservations SET expires_at = now() WHERE job_id = :id", id=job)
        await llm.complete("hi")
        assert await account(rows, job) == (COST, 0)

    async def test_a_budget_below_a_single_call_starts_none(self, engine: AsyncEngine, metered: MeteredLlm, model: Model) -> None:
        job = await a_job(engine, 1)
        with pytest.raises(BudgetExceeded):
            await metered.charged(Purpose.EXTRACT, job).complete("hi")
        assert model.calls == 0

    async def test_a_retry_has_the_budget_of_its_first(self, engine: AsyncEngine, rows: Rows) -> None:
        jobs = JobRepository(engine, job_settings())
        job = await jobs.accept(a_request(budget_tokens=500))
        await rows.run("UPDATE jobs SET status = 'failed', finished_at = now(), tokens = 400 WHERE id = :id", id=job.id)
        again = await jobs.retry("ada", job.id)
        assert (again.budget_tokens, again.tokens) == (500, 0)
