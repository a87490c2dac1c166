"""P2: a job ends in exactly one state and keeps it.

The life of a job against a model of it: whatever clients, workers and the clock do, and in whatever order. The model is a few lines
of Python; the product is the SQL. After every step the row must be what the model says, the fence must have grown exactly with the
claims, and an end state must stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from shield.database.engine import create_engine
from shield.errors import JobEnded, LeaseLost, PageUnreachable
from shield.jobs.model import Claim, Job, Status
from shield.jobs.repository import JobRepository
from shield.settings import PostgresSettings
from tests.integration.jobs.support import ME, Rows, a_request, job_settings

T = TypeVar("T")
BUDGET = 2  # short, so that a random life meets its end


@dataclass(frozen=True)
class Model:
    """What the row should say."""

    status: Status = Status.PENDING
    fence: int = 0
    errors: int = 0
    crashes: int = 0
    held: bool = False
    parked: bool = False
    cancel: bool = False

    @property
    def ended(self) -> bool:
        return self.status.ended

    def let_go(self, **changes: Any) -> Model:
        return replace(self, held=False, parked=False, **changes)


class JobLife(RuleBasedStateMachine):
    """Every promise about one job, in every order.

    What ends a life is held back until its third claim, so that lives are long enough to meet every budget.
    """

    dsn: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.engine = create_engine(self.dsn, PostgresSettings(pool_size=1))
        self.jobs = JobRepository(self.engine, job_settings(max_errors=BUDGET, max_crashes=BUDGET))
        self.rows = Rows(self.engine)
        self.claims: list[Claim] = []
        self.model = Model()
        self.job: Job

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.runner.run(awaited())

    @initialize()
    def accept(self) -> None:
        self.run(self.rows.run("TRUNCATE jobs CASCADE"))
        self.job = self.run(self.jobs.accept(a_request()))

    @precondition(lambda self: self.model.ended)
    @rule()
    def another_job(self) -> None:
        self.claims, self.model = [], Model()
        self.job = self.run(self.jobs.accept(a_request()))

    # -- workers ------------------------------------------------------------------------------------------------------

    @rule()
    def claim(self) -> None:
        self._claim()

    @precondition(lambda self: self.model.held)
    @rule(silent=st.integers(1, 3), cancelled=st.booleans())
    def workers_die_one_after_the_other(self, silent: int, cancelled: bool) -> None:
        for _ in range(silent):
            if self.model.held:
                self.run(self.rows.lapse(self.job.id))
                self.model = replace(self.model, held=False)
                self._claim()
        if cancelled and self.model.held:
            self.run(self.jobs.request_cancel("ada", self.job.id))
            self.run(self.rows.lapse(self.job.id))
            self.model = replace(self.model, cancel=True, held=False)
            self._claim()

    def _claim(self) -> None:
        taken = self.run(self.jobs.claim_next(ME))
        model = self.model
        crash = int(model.status is Status.PROCESSING)
        may = not model.ended and not model.held and not model.parked and not model.cancel and model.crashes + crash < BUDGET
        assert (taken is not None) == may
        if taken:
            self.claims.append(taken)
            assert taken.resumed == (model.fence > 0)
            self.model = replace(model, status=Status.PROCESSING, fence=model.fence + 1, crashes=model.crashes + crash, held=True)

    @precondition(lambda self: len(self.claims) > 1)
    @rule()
    def every_older_claim_is_refused(self) -> None:
        for old in self.claims[:-1]:
            assert not self.run(self.jobs.heartbeat(old)).ok
            with pytest.raises(LeaseLost):
                self.run(self.jobs.hand_back(old))

    @precondition(lambda self: self.claims and (self.model.cancel or not self.model.held))
    @rule()
    def beat(self) -> None:
        beat = self.run(self.jobs.heartbeat(self.claims[-1]))
        assert beat.ok == self._writable()
        if beat.ok:
            assert beat.cancel_requested == self.model.cancel
            self.model = replace(self.model, held=True)

    @precondition(lambda self: self.model.fence > 2)
    @rule()
    def complete(self) -> None:
        if self._write(self.jobs.finish(self.claims[-1], Status.COMPLETED, outcome="complete")):
            self.model = self.model.let_go(status=Status.COMPLETED)

    @precondition(lambda self: self.claims)
    @rule()
    def fail_transient(self) -> None:
        if self._write(self.jobs.fail_transient(self.claims[-1], PageUnreachable())):
            if self.model.cancel:
                self.model = self.model.let_go(status=Status.CANCELLED)
            elif self.model.errors + 1 >= BUDGET:
                self.model = self.model.let_go(status=Status.FAILED)
            else:
                self.model = self.model.let_go(status=Status.PENDING, errors=self.model.errors + 1)
                self.run(self.rows.make_due(self.job.id))

    @precondition(lambda self: self.claims)
    @rule()
    def hand_back(self) -> None:
        if self._write(self.jobs.hand_back(self.claims[-1])):
            self.model = self.model.let_go(status=Status.CANCELLED if self.model.cancel else Status.PENDING)

    @precondition(lambda self: self.claims)
    @rule()
    def park(self) -> None:
        if self._write(self.jobs.park(self.claims[-1])):
            cancelled = self.model.cancel
            self.model = self.model.let_go(status=Status.CANCELLED) if cancelled else replace(self.model, held=False, parked=True)

    # -- everybody else -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.held)
    @rule()
    def the_worker_falls_silent(self) -> None:
        self.run(self.rows.lapse(self.job.id))
        self.model = replace(self.model, held=False)

    @precondition(lambda self: self.model.held or self.model.fence > 2)
    @rule()
    def cancel(self) -> None:
        if self.model.status in (Status.COMPLETED, Status.FAILED):
            with pytest.raises(JobEnded):
                self.run(self.jobs.request_cancel("ada", self.job.id))
            return
        self.run(self.jobs.request_cancel("ada", self.job.id))
        if self.model.held:
            self.model = replace(self.model, cancel=True)
        else:
            self.model = self.model.let_go(status=Status.CANCELLED)

    @rule()
    def sweep(self) -> None:
        self.run(self.jobs.sweep())
        model = self.model
        lapsed = model.status is Status.PROCESSING and not model.held and not model.parked
        if lapsed and model.cancel:
            self.model = model.let_go(status=Status.CANCELLED)
        elif lapsed and model.crashes + 1 >= BUDGET:
            self.model = model.let_go(status=Status.FAILED, crashes=model.crashes + 1)
        elif model.parked:
            self.model = model.let_go(status=Status.PENDING)

    @precondition(lambda self: not self.model.ended and self.model.fence > 2)
    @rule()
    def the_deadline_passes(self) -> None:
        self.run(self.rows.make_late(self.job.id))
        self.run(self.jobs.sweep())
        lapsed = not self.model.held and not self.model.parked and self.model.status is Status.PROCESSING
        cancelled = lapsed and self.model.cancel
        crashes = self.model.crashes + int(lapsed and not cancelled)
        self.model = self.model.let_go(status=Status.CANCELLED if cancelled else Status.FAILED, crashes=crashes)

    @invariant()
    def the_row_is_what_the_model_says(self) -> None:
        if not hasattr(self, "job"):
            return
        job = self.run(self.jobs.get("ada", self.job.id))
        model = self.model
        assert (job.status, job.fence, job.parked) == (model.status, model.fence, model.parked)
        assert (job.crashes, job.finished_at is not None) == (model.crashes, model.ended)
        assert (job.lease_until is not None) == (model.status is Status.PROCESSING and not model.parked)

    def teardown(self) -> None:
        self.run(self.engine.dispose())
        self.runner.close()

    def _writable(self) -> bool:
        return self.model.status is Status.PROCESSING and not self.model.parked

    def _write(self, write: Awaitable[object]) -> bool:
        """Whether the newest claim's write was taken; it must be, exactly when the job is still its own."""
        try:
            self.run(write)
        except LeaseLost:
            assert not self._writable()
            return False
        assert self._writable()
        return True


def test_a_job_lives_as_the_model_says(dsn: str) -> None:
    machine = type("OnThisDatabase", (JobLife,), {"dsn": dsn})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
        ),
    )
