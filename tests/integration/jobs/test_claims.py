"""Claims: one worker at a time, fenced writes, budgets, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import JobEnded, LeaseLost, PageUnreachable
from shield.jobs.model import (
    Beat,
    Claim,
    DocumentOutcome,
    Job,
    JobKind,
    OutcomeStatus,
    Priority,
    Progress,
    Stage,
    Status,
)
from shield.jobs.repository import JobRepository, fenced
from tests.integration.jobs.support import ME, OTHER, Rows, a_request, job_settings

OUTCOME = DocumentOutcome(1, "https://example.org/", OutcomeStatus.STORED, counted=True, chunks=3, bytes=9)

FENCED_WRITES: dict[str, Callable[[JobRepository, Claim], Awaitable[object]]] = {
    "progress": lambda jobs, claim: jobs.save_progress(claim, Progress(documents=1), Stage.INDEX),
    "outcome": lambda jobs, claim: jobs.record_outcome(claim, OUTCOME),
    "finish": lambda jobs, claim: jobs.finish(claim, Status.COMPLETED, outcome="complete"),
    "fail": lambda jobs, claim: jobs.fail_transient(claim, PageUnreachable()),
    "hand back": lambda jobs, claim: jobs.hand_back(claim),
    "park": lambda jobs, claim: jobs.park(claim),
    "cancelled": lambda jobs, claim: jobs.cancelled(claim),
}
LETTING_GO: dict[str, Callable[[JobRepository, Rows, Claim], Awaitable[object]]] = {
    "parked": lambda jobs, rows, claim: jobs.park(claim),
    "handed back": lambda jobs, rows, claim: jobs.hand_back(claim),
    "ended": lambda jobs, rows, claim: jobs.cancelled(claim),
    "removed": lambda jobs, rows, claim: rows.run("DELETE FROM jobs"),
}


@pytest.fixture
async def claim(jobs: JobRepository) -> Claim:
    claim = await jobs.claim((await jobs.accept(a_request())).id, ME)
    assert claim is not None
    return claim


async def take(jobs: JobRepository, rows: Rows, job: Job) -> Claim:
    """Claim a waiting job whatever its pause."""
    await rows.make_due(job.id)
    claim = await jobs.claim(job.id, ME)
    assert claim is not None
    return claim


class TestClaim:
    async def test_a_claim_starts_the_job(self, jobs: JobRepository) -> None:
        claim = await jobs.claim((await jobs.accept(a_request())).id, ME)
        assert claim is not None
        assert (claim.fence, claim.resumed, claim.worker) == (1, False, ME)
        assert (claim.job.status, claim.job.crashes) == (Status.PROCESSING, 0)
        assert claim.job.started_at is not None

    async def test_of_many_workers_one_gets_the_job(self, jobs: JobRepository) -> None:
        job = await jobs.accept(a_request())
        claims = await asyncio.gather(*(jobs.claim(job.id, ME) for _ in range(10)), *(jobs.claim_next(OTHER) for _ in range(10)))
        assert len([claim for claim in claims if claim]) == 1

    async def test_a_live_lease_is_not_taken_and_a_lapsed_one_is_at_the_cost_of_a_crash(
        self, jobs: JobRepository, rows: Rows, claim: Claim
    ) -> None:
        assert await jobs.claim(claim.job.id, OTHER) is None
        await rows.lapse(claim.job.id)
        second = await jobs.claim_next(OTHER)
        assert second is not None
        assert (second.fence, second.resumed, second.job.crashes) == (2, True, 1)
        assert second.job.started_at == claim.job.started_at

    async def test_a_worker_does_not_take_what_it_has_not_let_go_of(self, jobs: JobRepository, rows: Rows, claim: Claim) -> None:
        await rows.lapse(claim.job.id)
        assert await jobs.claim_next(ME, exclude=[claim.job.id]) is None

    async def test_a_worker_takes_only_its_runners_jobs_and_what_it_can_run(self, jobs: JobRepository) -> None:
        pods = await jobs.accept(a_request(runner="ingestjob:1"))
        needy = await jobs.accept(a_request(needs=("browser", "ocr")))
        assert await jobs.claim_next(ME, frozenset({"browser"})) is None
        assert await jobs.claim(pods.id, ME) is None
        assert await jobs.claim(pods.id, ME, runner="ingestjob:2") is None
        assert await jobs.claim_next(ME, frozenset({"browser", "ocr", "gpu"}), kinds=[JobKind.DELETE]) is None
        taken = await jobs.claim_next(ME, frozenset({"browser", "ocr", "gpu"}))
        assert taken is not None
        assert taken.job.id == needy.id
        assert await jobs.claim(pods.id, ME, runner="ingestjob:1") is not None

    async def test_a_job_is_not_begun_before_its_time_after_its_deadline_or_once_cancelled(self, jobs: JobRepository, rows: Rows) -> None:
        early, late, unwanted = [await jobs.accept(a_request()) for _ in range(3)]
        await rows.shift("available_at", early.id, timedelta(hours=1))
        await rows.make_late(late.id)
        await rows.shift("cancel_requested_at", unwanted.id, timedelta())
        assert await jobs.claim_next(ME) is None
        assert [await jobs.claim(job.id, ME) for job in (early, late, unwanted)] == [None, None, None]

    async def test_a_row_that_a_paused_worker_holds_keeps_nobody_waiting(
        self, jobs: JobRepository, engine: AsyncEngine, rows: Rows
    ) -> None:
        stuck, free = await jobs.accept(a_request()), await jobs.accept(a_request())
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR SHARE"), {"id": stuck.id})
            async with asyncio.timeout(2):
                assert await jobs.claim(stuck.id, OTHER) is None
                taken = await jobs.claim_next(OTHER)
        assert taken is not None
        assert taken.job.id == free.id

    async def test_while_another_process_chooses_nothing_is_chosen(self, jobs: JobRepository, engine: AsyncEngine) -> None:
        await jobs.accept(a_request())
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('shield.claim', 0))"))
            assert await jobs.claim_next(ME) is None
        assert await jobs.claim_next(ME) is not None


class TestFence:
    @pytest.mark.parametrize("write", FENCED_WRITES.values(), ids=FENCED_WRITES)
    async def test_a_worker_that_lost_its_job_changes_nothing(
        self, jobs: JobRepository, rows: Rows, claim: Claim, write: Callable[[JobRepository, Claim], Awaitable[object]]
    ) -> None:
        await rows.lapse(claim.job.id)
        await jobs.claim_next(OTHER)
        before = await rows.run("SELECT * FROM jobs")
        with pytest.raises(LeaseLost):
            await write(jobs, claim)
        assert await jobs.heartbeat(claim) == Beat(ok=False)
        assert await rows.run("SELECT * FROM jobs") == before
        assert await rows.run("SELECT * FROM job_outcomes") == []

    @pytest.mark.parametrize("let_go", LETTING_GO.values(), ids=LETTING_GO)
    async def test_who_let_go_of_a_job_writes_no_more(
        self,
        jobs: JobRepository,
        rows: Rows,
        claim: Claim,
        engine: AsyncEngine,
        let_go: Callable[[JobRepository, Rows, Claim], Awaitable[object]],
    ) -> None:
        await let_go(jobs, rows, claim)
        for write in FENCED_WRITES.values():
            with pytest.raises(LeaseLost):
                await write(jobs, claim)
        with pytest.raises(LeaseLost):
            async with engine.begin() as connection:
                await fenced(connection, claim)

    async def test_a_lapsed_lease_that_nobody_took_is_renewed(self, jobs: JobRepository, rows: Rows, claim: Claim) -> None:
        await rows.lapse(claim.job.id)
        assert await jobs.heartbeat(claim) == Beat(ok=True)
        assert await jobs.claim_next(OTHER) is None

    async def test_nobody_takes_a_job_over_inside_a_fenced_transaction(
        self, jobs: JobRepository, rows: Rows, claim: Claim, engine: AsyncEngine
    ) -> None:
        await rows.lapse(claim.job.id)
        async with engine.begin() as connection:
            await fenced(connection, claim)
            assert await jobs.claim(claim.job.id, OTHER) is None
        assert await jobs.claim(claim.job.id, OTHER) is not None


class TestProgressAndOutcomes:
    async def test_progress_and_stage_are_kept(self, jobs: JobRepository, claim: Claim) -> None:
        progress = Progress(pages_found=5, pages_fetched=3, documents=2, chunks=7, failed=1, bytes=99, percentage=40.5)
        await jobs.save_progress(claim, progress, Stage.CONVERT)
        job = await jobs.get("ada", claim.job.id)
        assert (job.progress, job.stage) == (progress, Stage.CONVERT)

    async def test_outcomes_are_read_in_order_and_a_later_word_replaces(self, jobs: JobRepository, claim: Claim) -> None:
        for number in (3, 1, 2):
            await jobs.record_outcome(claim, DocumentOutcome(number, f"u{number}", OutcomeStatus.FAILED, code="page.timeout", message="m"))
        await jobs.record_outcome(claim, DocumentOutcome(2, "u2", OutcomeStatus.STORED, counted=True, chunks=4))
        assert [outcome.number for outcome in await jobs.outcomes(claim.job.id)] == [1, 2, 3]
        (second,) = await jobs.outcomes(claim.job.id, after=1, limit=1)
        assert second == DocumentOutcome(2, "u2", OutcomeStatus.STORED, counted=True, chunks=4)
        assert await jobs.outcome_count(claim.job.id) == 3

    async def test_hostile_text_in_an_outcome_is_kept_in_a_form_that_can_be_stored(self, jobs: JobRepository, claim: Claim) -> None:
        await jobs.record_outcome(claim, DocumentOutcome(1, "https://x/\0\ud800", OutcomeStatus.FAILED, message="\0" + "m" * 10_000))
        (outcome,) = await jobs.outcomes(claim.job.id)
        assert outcome.source == "https://x/\ufffd?"
        assert outcome.message is not None
        assert len(outcome.message) == 2000


class TestEnd:
    async def test_a_completed_job_is_done_and_keeps_nothing_that_was_sent(self, jobs: JobRepository, rows: Rows) -> None:
        job = await jobs.accept(a_request(payload=b"secret", payload_bytes=6))
        claim = await jobs.claim(job.id, ME)
        assert claim is not None
        await rows.run(
            "INSERT INTO crawl_pages (job_id, number, url, depth, state, body) VALUES (:id, 1, 'u', 0, 'fetched', 'b')", id=job.id
        )
        await jobs.fail_transient(claim, PageUnreachable())
        claim = await take(jobs, rows, job)
        ended = await jobs.finish(claim, Status.COMPLETED, outcome="partial")
        assert (ended.status, ended.outcome, ended.stage, ended.progress.percentage) == (Status.COMPLETED, "partial", Stage.DONE, 100)
        assert (ended.error_code, ended.error_message, ended.lease_until, ended.waiting_for) == (None, None, None, None)
        assert ended.finished_at is not None
        assert await rows.value("payload", job.id) is None
        assert (await rows.run("SELECT body FROM crawl_pages"))[0][0] is None

    async def test_a_failed_job_names_its_error_and_where_it_stood(self, jobs: JobRepository, claim: Claim) -> None:
        await jobs.save_progress(claim, Progress(percentage=30), Stage.CONVERT)
        ended = await jobs.finish(claim, Status.FAILED, error=PageUnreachable("No \0 answer."))
        assert (ended.status, ended.error_code, ended.error_message) == (Status.FAILED, "page.unreachable", "No \ufffd answer.")
        assert (ended.stage, ended.progress.percentage) == (Stage.CONVERT, 30)


class TestBudgets:
    async def test_errors_pause_the_job_and_the_last_one_fails_it_by_name(self, jobs: JobRepository, rows: Rows, claim: Claim) -> None:
        for spent in (1, 2):
            job = await jobs.fail_transient(claim, PageUnreachable())
            assert (job.status, job.errors, job.error_code) == (Status.PENDING, spent, "page.unreachable")
            assert job.available_at - job.updated_at <= job_settings().backoff_max
            claim = await take(jobs, rows, job)
        job = await jobs.fail_transient(claim, PageUnreachable())
        assert (job.status, job.error_code, job.crashes) == (Status.FAILED, "job.retries_exhausted", 0)
        assert "page.unreachable" in str(job.error_message)

    async def test_a_pause_that_was_asked_for_is_kept(self, jobs: JobRepository, claim: Claim) -> None:
        job = await jobs.fail_transient(claim, PageUnreachable(retry_after=60))
        assert job.available_at - job.updated_at == timedelta(seconds=60)
        assert await jobs.claim(job.id, ME) is None

    async def test_handing_back_spends_nothing_and_says_what_is_waited_for(self, jobs: JobRepository, rows: Rows, claim: Claim) -> None:
        for _ in range(5):
            job = await jobs.hand_back(claim, "llm", timedelta(seconds=30))
            assert (job.status, job.waiting_for, job.errors, job.crashes) == (Status.PENDING, "llm", 0, 0)
            assert job.available_at - job.updated_at == timedelta(seconds=30)
            claim = await take(jobs, rows, job)
            assert claim.job.waiting_for is None

    async def test_a_job_that_kills_its_worker_runs_exactly_as_often_as_its_budget_says(self, jobs: JobRepository, rows: Rows) -> None:
        job = await jobs.accept(a_request())
        runs = 0
        while await jobs.claim_next(ME) is not None:
            runs += 1
            await rows.lapse(job.id)
        assert runs == 3
        swept = await jobs.sweep()
        assert swept is not None
        assert swept.exhausted == 1
        ended = await jobs.get("ada", job.id)
        assert (ended.status, ended.error_code, ended.crashes) == (Status.FAILED, "job.retries_exhausted", 3)


class TestCancel:
    async def test_a_waiting_job_is_cancelled_at_once(self, jobs: JobRepository) -> None:
        job = await jobs.accept(a_request())
        assert (await jobs.request_cancel("ada", job.id)).status is Status.CANCELLED
        assert (await jobs.request_cancel("ada", job.id)).status is Status.CANCELLED

    async def test_a_parked_or_orphaned_job_is_cancelled_at_once(self, jobs: JobRepository, rows: Rows, claim: Claim) -> None:
        await jobs.park(claim)
        assert (await jobs.request_cancel("ada", claim.job.id)).status is Status.CANCELLED
        orphan = await jobs.claim((await jobs.accept(a_request())).id, ME)
        assert orphan is not None
        await rows.lapse(orphan.job.id)
        assert (await jobs.request_cancel("ada", orphan.job.id)).status is Status.CANCELLED

    async def test_the_worker_of_a_running_job_learns_of_it_with_its_heartbeat(self, jobs: JobRepository, claim: Claim) -> None:
        assert (await jobs.request_cancel("ada", claim.job.id)).status is Status.PROCESSING
        assert await jobs.heartbeat(claim) == Beat(ok=True, cancel_requested=True)
        ended = await jobs.cancelled(claim)
        assert (ended.status, ended.error_code) == (Status.CANCELLED, "job.cancelled")

    @pytest.mark.parametrize("letting_go", ["fail", "hand back", "park"])
    async def test_a_job_that_is_let_go_after_a_cancel_ends_instead_of_waiting(
        self, jobs: JobRepository, claim: Claim, letting_go: str
    ) -> None:
        await jobs.request_cancel("ada", claim.job.id)
        await FENCED_WRITES[letting_go](jobs, claim)
        assert (await jobs.get("ada", claim.job.id)).status is Status.CANCELLED

    async def test_an_ended_job_is_not_cancelled(self, jobs: JobRepository, claim: Claim) -> None:
        await jobs.finish(claim, Status.COMPLETED, outcome="complete")
        with pytest.raises(JobEnded):
            await jobs.request_cancel("ada", claim.job.id)


class TestTurns:
    async def test_one_job_of_bea_does_not_wait_behind_the_many_of_ada(self, jobs: JobRepository) -> None:
        for _ in range(30):
            await jobs.accept(a_request())
        first = [await jobs.claim_next(ME) for _ in range(2)]
        for claim in first:
            assert claim is not None
            await jobs.cancelled(claim)
        await jobs.accept(a_request(principal="bea"))
        started = []
        for _ in range(4):  # 2 x slots
            claim = await jobs.claim_next(ME)
            assert claim is not None
            started.append(claim.job.principal)
            await jobs.cancelled(claim)
        assert "bea" in started

    async def test_principals_take_turns(self, engine: AsyncEngine) -> None:
        jobs = JobRepository(engine, job_settings(max_running_principal=100))
        for principal, count in (("ada", 9), ("bea", 3), ("cy", 3)):
            for _ in range(count):
                await jobs.accept(a_request(principal=principal))
        started = [claim.job.principal for _ in range(9) if (claim := await jobs.claim_next(ME))]
        assert Counter(started) == {"ada": 3, "bea": 3, "cy": 3}

    async def test_a_principal_runs_only_so_many_jobs_at_once(self, jobs: JobRepository) -> None:
        for _ in range(6):
            await jobs.accept(a_request())
        claims = [await jobs.claim_next(ME) for _ in range(6)]
        assert len([claim for claim in claims if claim]) == 4
        assert claims[0] is not None
        await jobs.park(claims[0])
        assert await jobs.claim_next(ME) is not None

    async def test_high_goes_before_normal_before_low_and_older_before_newer(self, engine: AsyncEngine) -> None:
        jobs = JobRepository(engine, job_settings(max_running_principal=100))
        made = [await jobs.accept(a_request(priority=p)) for p in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.HIGH)]
        started = [claim.job.id for _ in made if (claim := await jobs.claim_next(ME))]
        assert started == [made[2].id, made[3].id, made[1].id, made[0].id]

    async def test_one_start_of_ten_goes_to_who_waits_behind_a_higher_priority(self, engine: AsyncEngine) -> None:
        jobs = JobRepository(engine, job_settings(max_running_principal=100, max_pending_principal=1000))
        low = [await jobs.accept(a_request(priority=Priority.LOW)) for _ in range(3)]
        for _ in range(40):
            await jobs.accept(a_request(priority=Priority.HIGH))
            await jobs.accept(a_request(principal="bea"))
        started = [claim.job for _ in range(31) if (claim := await jobs.claim_next(ME))]
        assert [job.id for job in started if job.priority is Priority.LOW] == [job.id for job in low]
        assert 14 <= Counter(job.principal for job in started)["bea"] <= 16
