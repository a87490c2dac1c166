"""The rows of IngestJobs, many at once: seen, listed and cancelled by uid; a job of the fleet is never met."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.jobs.model import Claim, Job, Status
from shield.jobs.pods import runner_of
from shield.jobs.repository import JobRepository
from tests.integration.jobs.support import ME, Rows, a_request


async def accepted(jobs: JobRepository, uid: str, **changes: Any) -> Job:
    """The row of an IngestJob."""
    return await jobs.accept(a_request(principal="k8s:team-a", runner=runner_of(uid), idempotency_key=uid, **changes))


async def claimed(jobs: JobRepository, uid: str) -> Claim:
    """A row that its pod runs."""
    claim = await jobs.claim((await accepted(jobs, uid)).id, ME, runner=runner_of(uid))
    assert claim is not None
    return claim


class TestRows:
    async def test_each_uid_gives_its_row_and_an_unknown_one_nothing(self, jobs: JobRepository) -> None:
        claim = await claimed(jobs, "u-1")
        await accepted(jobs, "u-2")
        await jobs.accept(a_request())
        found = {row.uid: row for row in await jobs.pod_rows(["u-2", "u-1", "nowhere", "fleet"])}
        assert {uid: (row.status, row.attempts) for uid, row in found.items()} == {
            "u-1": (Status.PROCESSING, 1),
            "u-2": (Status.PENDING, 0),
        }
        assert found["u-1"].id == claim.job.id

    async def test_a_run_that_crashed_counts_as_an_attempt_and_one_that_handed_back_does_not(self, jobs: JobRepository, rows: Rows) -> None:
        claim = await claimed(jobs, "u-1")
        await rows.lapse(claim.job.id)
        again = await jobs.claim(claim.job.id, ME, runner=runner_of("u-1"))
        assert again is not None
        assert (await jobs.pod_rows(["u-1"]))[0].attempts == 2
        await jobs.hand_back(again)
        assert (await jobs.pod_rows(["u-1"]))[0].attempts == 2

    async def test_the_newest_row_of_a_uid_counts(self, jobs: JobRepository, rows: Rows) -> None:
        first = await accepted(jobs, "u-1")
        await rows.run("UPDATE jobs SET idempotency_key = NULL WHERE id = :id", id=first.id)
        second = await accepted(jobs, "u-1")
        assert [row.id for row in await jobs.pod_rows(["u-1"])] == [second.id]
        assert (await jobs.of_pod("k8s:team-a", "u-1")) == second
        assert await jobs.of_pod("k8s:team-b", "u-1") is None

    async def test_a_thousand_take_one_statement_on_the_index_of_pods(self, jobs: JobRepository, engine: AsyncEngine, rows: Rows) -> None:
        await rows.run(
            "INSERT INTO jobs (kind, principal, runner, knowledge_base_id, knowledge_base, spec, request_hash, deadline_at)"
            " SELECT 'crawl', 'a', CASE WHEN n % 4 = 0 THEN 'ingestjob:' || n ELSE 'fleet' END, gen_random_uuid(), 'default', '{}', n::text,"
            " now() + interval '1 day' FROM generate_series(1, 8000) AS n"
        )
        async with engine.begin() as connection:
            await connection.execute(text("ANALYZE jobs"))
            plan = await connection.execute(
                text("EXPLAIN SELECT id FROM jobs WHERE runner = ANY(CAST(:r AS text[])) AND runner <> 'fleet'"), {"r": [runner_of("4")]}
            )
            assert "ix_jobs_runner" in "\n".join(plan.scalars())
        assert len(await jobs.pod_rows([str(n) for n in range(1, 1001)])) == 250


class TestActive:
    async def test_those_that_have_not_ended_come_in_pages_and_in_order(self, jobs: JobRepository) -> None:
        uids = sorted(str(uuid4()) for _ in range(5))
        for uid in uids:
            await accepted(jobs, uid)
        await jobs.accept(a_request())
        await jobs.accept(a_request(runner="zebra"))
        await jobs.cancel_pods([uids[1]])
        assert list(await jobs.active_pods(limit=2)) == [uids[0], uids[2]]
        assert list(await jobs.active_pods(uids[2], limit=10)) == uids[3:]

    async def test_of_some_principals_only_theirs_come(self, jobs: JobRepository) -> None:
        await accepted(jobs, "u-1")
        await jobs.accept(a_request(principal="k8s:team-b", runner=runner_of("u-2")))
        await jobs.accept(a_request(principal="k8s:team-c", runner=runner_of("u-3")))
        assert list(await jobs.active_pods(principals=["k8s:team-b", "k8s:team-c"])) == ["u-2", "u-3"]
        assert list(await jobs.active_pods(principals=["k8s:team-b", "k8s:nobody"])) == ["u-2"]
        assert list(await jobs.active_pods(principals=[])) == []


class TestCancel:
    async def test_what_no_pod_holds_is_cancelled_at_once(self, jobs: JobRepository, rows: Rows) -> None:
        waiting, lapsed = await accepted(jobs, "u-1"), await claimed(jobs, "u-2")
        await rows.lapse(lapsed.job.id)
        parked = await claimed(jobs, "u-3")
        await rows.graph_task(parked.job.id)
        await jobs.park(parked)
        assert await jobs.cancel_pods(["u-1", "u-2", "u-3"]) == 3
        for job_id in (waiting.id, lapsed.job.id, parked.job.id):
            job = await jobs.get(None, job_id)
            assert (job.status, job.error_code, job.parked, job.lease_until) == (Status.CANCELLED, "job.cancelled", False, None)
            assert job.finished_at is not None

    async def test_a_pod_that_holds_its_row_hears_of_it_with_the_next_heartbeat(self, jobs: JobRepository) -> None:
        claim = await claimed(jobs, "u-1")
        assert await jobs.cancel_pods(["u-1"]) == 1
        assert (await jobs.heartbeat(claim)).cancel_requested
        assert (await jobs.cancelled(claim)).status is Status.CANCELLED

    async def test_a_pod_that_dies_instead_leaves_a_cancelled_row(self, jobs: JobRepository, rows: Rows) -> None:
        claim = await claimed(jobs, "u-1")
        await jobs.cancel_pods(["u-1"])
        await rows.lapse(claim.job.id)
        assert await jobs.claim(claim.job.id, ME, runner=runner_of("u-1")) is None
        await jobs.sweep()
        assert (await jobs.get(None, claim.job.id)).status is Status.CANCELLED

    async def test_again_changes_nothing_and_an_end_stays_what_it_was(self, jobs: JobRepository) -> None:
        claim = await claimed(jobs, "u-1")
        await accepted(jobs, "u-2")
        await jobs.finish(claim, Status.COMPLETED, outcome="complete")
        assert await jobs.cancel_pods(["u-1", "u-2"]) == 1
        before = [await jobs.get(None, row.id) for row in await jobs.pod_rows(["u-1", "u-2"])]
        assert await jobs.cancel_pods(["u-1", "u-2", "nowhere"]) == 0
        assert [await jobs.get(None, job.id) for job in before] == before
        assert [job.status for job in before] == [Status.COMPLETED, Status.CANCELLED]

    async def test_the_fleets_jobs_and_their_webhooks_are_not_touched(self, jobs: JobRepository, rows: Rows) -> None:
        theirs = await jobs.accept(a_request())
        told = await accepted(jobs, "u-1", spec={"url": "https://example.org/", "webhook": "https://example.org/told"})
        assert await jobs.cancel_pods(["fleet", "", "u-1"]) == 1
        assert (await jobs.get(None, theirs.id)).status is Status.PENDING
        assert await rows.run("SELECT job_id, url FROM webhook_deliveries") == [(told.id, "https://example.org/told")]
