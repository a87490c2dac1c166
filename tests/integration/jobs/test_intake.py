"""Intake: one request makes one job under any race, and a refused request leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import (
    BytesQuotaExceeded,
    IdempotencyMismatch,
    InvalidRequest,
    JobNotRetryable,
    PageUnreachable,
    QueueFull,
    ShieldError,
    TooManyPending,
    UnknownJob,
    UnknownUpload,
    UploadIncomplete,
)
from shield.jobs.model import Claim, DocumentOutcome, Job, JobKind, OutcomeStatus, Priority, Status
from shield.jobs.repository import JobRepository
from tests.integration.jobs.support import ME, Rows, a_request, job_settings


async def claimed(jobs: JobRepository, job: Job) -> Claim:
    claim = await jobs.claim(job.id, ME)
    assert claim is not None
    return claim


class TestAccept:
    async def test_a_job_is_stored_as_it_was_asked_for(self, jobs: JobRepository) -> None:
        request = a_request(needs=("ocr", "browser"), priority=Priority.HIGH, traceparent="00-1-2-01", payload=b"x", payload_bytes=1)
        job = await jobs.accept(request)
        assert (job.status, job.kind, job.priority, job.needs) == (Status.PENDING, JobKind.CRAWL, Priority.HIGH, ("browser", "ocr"))
        assert (job.spec, job.traceparent, job.fence) == (request.spec, "00-1-2-01", 0)
        assert job.deadline_at - job.created_at == timedelta(hours=24)
        assert await jobs.get("ada", job.id) == job == await jobs.get(None, job.id)

    async def test_nobody_else_sees_it(self, jobs: JobRepository) -> None:
        job = await jobs.accept(a_request())
        with pytest.raises(UnknownJob):
            await jobs.get("eve", job.id)
        with pytest.raises(UnknownJob):
            await jobs.request_cancel("eve", job.id)
        with pytest.raises(UnknownJob):
            await jobs.retry("eve", job.id)
        assert (await jobs.list("eve")).jobs == []

    @pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=["NUL", "surrogate"])
    async def test_text_that_postgresql_cannot_hold_is_the_callers_mistake(self, jobs: JobRepository, text: str) -> None:
        with pytest.raises(InvalidRequest):
            await jobs.accept(a_request(spec={"type": "document", "title": text}))


class TestIdempotency:
    async def test_a_hundred_equal_requests_at_once_make_one_job(self, jobs: JobRepository, rows: Rows) -> None:
        request = a_request(idempotency_key="k", request_hash="h")
        accepted = await asyncio.gather(*(jobs.accept(request) for _ in range(100)))
        assert len({job.id for job in accepted}) == 1
        assert (await rows.run("SELECT count(*) FROM jobs"))[0][0] == 1

    async def test_the_same_key_with_another_request_is_refused(self, jobs: JobRepository) -> None:
        await jobs.accept(a_request(idempotency_key="k"))
        with pytest.raises(IdempotencyMismatch):
            await jobs.accept(a_request(idempotency_key="k"))

    async def test_a_key_belongs_to_its_principal(self, jobs: JobRepository) -> None:
        mine = await jobs.accept(a_request(idempotency_key="k"))
        hers = await jobs.accept(a_request(idempotency_key="k", principal="bea"))
        assert mine.id != hers.id

    async def test_a_key_answers_after_the_end_until_it_is_forgotten(self, jobs: JobRepository, rows: Rows) -> None:
        request = a_request(idempotency_key="k", request_hash="h")
        first = await jobs.accept(request)
        await jobs.finish(await claimed(jobs, first), Status.COMPLETED, outcome="complete")
        assert (await jobs.accept(request)).id == first.id
        await rows.shift("finished_at", first.id, timedelta(days=-8))
        second = await jobs.accept(a_request(idempotency_key="k", request_hash="other"))
        assert second.id != first.id

    async def test_an_identical_live_request_without_a_key_shares_the_job(self, jobs: JobRepository) -> None:
        request = a_request(request_hash="h")
        first = await jobs.accept(request)
        assert (await jobs.accept(request)).id == first.id
        await claimed(jobs, first)
        assert (await jobs.accept(request)).id == first.id
        assert (await jobs.accept(a_request(request_hash="h", principal="bea"))).id != first.id
        assert (await jobs.accept(a_request(request_hash="h", share_live=False))).id != first.id
        assert (await jobs.accept(a_request(request_hash="h", idempotency_key="k"))).id != first.id

    async def test_a_job_that_is_being_cancelled_is_not_shared(self, jobs: JobRepository) -> None:
        request = a_request(request_hash="h")
        first = await jobs.accept(request)
        await claimed(jobs, first)
        await jobs.request_cancel("ada", first.id)
        assert (await jobs.accept(request)).id != first.id


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "expected"),
        [({"max_pending_principal": 3}, TooManyPending), ({"max_pending": 3}, QueueFull)],
        ids=["principal", "queue"],
    )
    async def test_a_full_queue_refuses_and_stores_nothing(
        self, engine: AsyncEngine, rows: Rows, limits: dict[str, int], expected: type[ShieldError]
    ) -> None:
        jobs = JobRepository(engine, job_settings(**limits))
        results = await asyncio.gather(*(jobs.accept(a_request()) for _ in range(8)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, expected)]
        assert len(refused) == 5
        assert all(error.retry_after for error in refused)
        assert (await rows.run("SELECT count(*) FROM jobs"))[0][0] == 3

    async def test_a_repeated_request_is_answered_although_the_queue_is_full(self, engine: AsyncEngine) -> None:
        jobs = JobRepository(engine, job_settings(max_pending=1))
        request = a_request(idempotency_key="k")
        assert (await jobs.accept(request)).id == (await jobs.accept(request)).id

    async def test_a_pods_own_job_waits_in_no_queue_and_has_no_budget(self, engine: AsyncEngine, rows: Rows) -> None:
        jobs = JobRepository(engine, job_settings(max_pending=1))
        await jobs.accept(a_request())
        job = await jobs.accept(a_request(runner="ingestjob:1"))
        assert await rows.value("max_errors", job.id) > 1000
        assert await rows.value("max_crashes", job.id) > 1000

    async def test_bytes_of_a_day_are_limited_and_the_answer_says_when_there_is_room_again(self, engine: AsyncEngine, rows: Rows) -> None:
        jobs = JobRepository(engine, job_settings(max_bytes_day=100))
        old = await jobs.accept(a_request(payload_bytes=60))
        await rows.shift("created_at", old.id, timedelta(hours=-23))
        await jobs.accept(a_request(payload_bytes=40))
        with pytest.raises(BytesQuotaExceeded) as refused:
            await jobs.accept(a_request(payload_bytes=50))
        assert refused.value.retry_after == pytest.approx(3600, abs=30)
        with pytest.raises(BytesQuotaExceeded) as refused:
            await jobs.accept(a_request(payload_bytes=61))
        assert refused.value.retry_after == pytest.approx(86400, abs=30)
        with pytest.raises(BytesQuotaExceeded) as refused:
            await jobs.accept(a_request(payload_bytes=101))
        assert refused.value.retry_after is None
        await rows.shift("created_at", old.id, timedelta(hours=-25))
        await jobs.accept(a_request(payload_bytes=60))


class TestUploads:
    async def test_an_upload_belongs_to_one_job(self, jobs: JobRepository, rows: Rows) -> None:
        upload = await rows.upload()
        job = await jobs.accept(a_request(upload_id=upload))
        assert (await rows.run("SELECT job_id FROM uploads WHERE id = :id", id=upload))[0][0] == job.id
        with pytest.raises(UnknownUpload):
            await jobs.accept(a_request(upload_id=upload))

    @pytest.mark.parametrize(
        ("upload", "expected"),
        [({"principal": "eve"}, UnknownUpload), ({"ttl": -1}, UnknownUpload), ({"stored": False}, UploadIncomplete)],
        ids=["of someone else", "expired", "without content"],
    )
    async def test_an_upload_that_cannot_be_used_makes_no_job(
        self, jobs: JobRepository, rows: Rows, upload: dict[str, Any], expected: type[ShieldError]
    ) -> None:
        with pytest.raises(expected):
            await jobs.accept(a_request(upload_id=await rows.upload(**upload)))
        assert (await rows.run("SELECT count(*) FROM jobs"))[0][0] == 0


class TestRetry:
    async def test_a_failed_job_is_retried_as_a_new_one_that_finds_the_old_outcomes(self, jobs: JobRepository) -> None:
        old = await jobs.accept(a_request(needs=("browser",), priority=Priority.LOW))
        claim = await jobs.claim(old.id, ME, frozenset({"browser"}))
        assert claim is not None
        await jobs.record_outcome(claim, DocumentOutcome(1, "https://example.org/", OutcomeStatus.STORED))
        await jobs.finish(claim, Status.FAILED, error=PageUnreachable())
        new = await jobs.retry("ada", old.id)
        assert (new.retry_of, new.spec, new.needs, new.priority, new.status) == (old.id, old.spec, old.needs, Priority.LOW, Status.PENDING)
        assert [outcome.number for outcome in await jobs.outcomes(old.id)] == [1]

    async def test_two_clicks_make_one_retry(self, jobs: JobRepository) -> None:
        old = await jobs.accept(a_request())
        await jobs.request_cancel("ada", old.id)
        first, second = await asyncio.gather(jobs.retry("ada", old.id), jobs.retry("ada", old.id))
        assert first.id == second.id

    @pytest.mark.parametrize("end", [None, "complete"], ids=["live", "complete"])
    async def test_a_job_that_is_live_or_complete_is_not_retried(self, jobs: JobRepository, end: str | None) -> None:
        job = await jobs.accept(a_request())
        if end:
            await jobs.finish(await claimed(jobs, job), Status.COMPLETED, outcome=end)
        with pytest.raises(JobNotRetryable):
            await jobs.retry("ada", job.id)

    async def test_a_partial_job_is_retried(self, jobs: JobRepository) -> None:
        job = await jobs.accept(a_request())
        await jobs.finish(await claimed(jobs, job), Status.COMPLETED, outcome="partial")
        assert (await jobs.retry("ada", job.id)).retry_of == job.id

    async def test_a_retry_takes_the_upload_over_again_and_again_or_says_that_it_is_gone(self, jobs: JobRepository, rows: Rows) -> None:
        upload = await rows.upload()
        first = await jobs.accept(a_request(upload_id=upload, spec={"upload_id": str(upload)}, payload_bytes=5))
        await jobs.request_cancel("ada", first.id)
        second = await jobs.retry("ada", first.id)
        await jobs.request_cancel("ada", second.id)
        await jobs.request_cancel("ada", (await jobs.retry("ada", first.id)).id)
        await rows.run("DELETE FROM uploads")
        with pytest.raises(UnknownUpload):
            await jobs.retry("ada", first.id)

    async def test_erased_inline_content_cannot_be_retried(self, jobs: JobRepository) -> None:
        job = await jobs.accept(a_request(payload=b"abc", payload_bytes=3))
        await jobs.request_cancel("ada", job.id)
        with pytest.raises(UnknownUpload, match="erased"):
            await jobs.retry("ada", job.id)

    async def test_a_pods_job_is_kubernetes_to_retry(self, jobs: JobRepository) -> None:
        job = await jobs.accept(a_request(runner="ingestjob:1"))
        await jobs.request_cancel("ada", job.id)
        with pytest.raises(JobNotRetryable):
            await jobs.retry("ada", job.id)


async def test_listing_is_newest_first_in_pages_and_by_status_and_knowledge_base(jobs: JobRepository) -> None:
    made = [await jobs.accept(a_request(knowledge_base="other" if n == 0 else "default")) for n in range(5)]
    await jobs.request_cancel("ada", made[1].id)
    seen: list[Job] = []
    before: int | None = None
    while True:
        page = await jobs.list("ada", limit=2, before=before)
        seen += page.jobs
        if (before := page.next) is None:
            break
    assert [job.id for job in seen] == [job.id for job in reversed(made)]
    assert [job.id for job in (await jobs.list("ada", status=Status.CANCELLED)).jobs] == [made[1].id]
    assert [job.id for job in (await jobs.list("ada", knowledge_base="other")).jobs] == [made[0].id]


@pytest.mark.parametrize("call", [lambda jobs: jobs.accept(a_request()), lambda jobs: jobs.stats(), lambda jobs: jobs.claim_next(ME)])
async def test_without_a_database_every_call_says_so(unreachable: JobRepository, call: Callable[[JobRepository], Any]) -> None:
    from shield.errors import DatabaseUnavailable

    with pytest.raises(DatabaseUnavailable):
        await call(unreachable)
