"""The row of an IngestJob is its pod's alone, whatever becomes of the pod; two idle workers of the fleet never touch it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from shield.jobs.model import Job, Status, WorkerId
from shield.jobs.pods import runner_of
from shield.jobs.repository import JobRepository
from tests.integration.jobs.support import a_request, job_settings
from tests.integration.promises.support import Fleet, ended, until

POD = WorkerId("pod")


async def row_of(fleet: Fleet, uid: str) -> Job:
    """The row that a pod accepted."""
    return await fleet.jobs.accept(a_request(principal="k8s:team-a", runner=runner_of(uid), idempotency_key=uid))


async def oom_killed(fleet: Fleet, uid: str) -> Job:
    job = await row_of(fleet, uid)
    assert await fleet.jobs.claim(job.id, POD, runner=runner_of(uid))
    await fleet.rows.lapse(job.id)
    return job


async def suspended(fleet: Fleet, uid: str) -> Job:
    job = await row_of(fleet, uid)
    claim = await fleet.jobs.claim(job.id, POD, runner=runner_of(uid))
    assert claim is not None
    return await fleet.jobs.hand_back(claim)


async def worn_out(fleet: Fleet, uid: str) -> Job:
    """Killed and failed more often than any job of the fleet may be."""
    job = await oom_killed(fleet, uid)
    await fleet.rows.run("UPDATE jobs SET errors = 50, crashes = 50 WHERE id = :id", id=job.id)
    return job


async def parked(fleet: Fleet, uid: str) -> Job:
    """Its graph steps are through, and its pod is not there to go on."""
    job = await row_of(fleet, uid)
    claim = await fleet.jobs.claim(job.id, POD, runner=runner_of(uid))
    assert claim is not None
    return await fleet.jobs.park(claim)


def told(job: Job) -> tuple[Any, ...]:
    return job.status, job.fence, job.errors, job.crashes, job.parked, job.updated_at


async def test_an_idle_fleet_leaves_rows_of_pods_alone(fleet: Fleet) -> None:
    makers = (row_of, oom_killed, suspended, worn_out, parked)
    made = [await maker(fleet, f"u-{number}") for number, maker in enumerate(makers)]
    before = [told(await fleet.jobs.get(None, job.id)) for job in made]
    async with fleet.running(fleet.relay(), fleet.worker(), fleet.worker()):
        await fleet.registered(2)
        for _ in range(3):  # the fleet is awake, and idle again after each
            await ended(fleet, (await fleet.jobs.accept(a_request())).id)
        while await fleet.jobs.sweep() is None:  # one of the workers is at it
            pass
    assert [told(await fleet.jobs.get(None, job.id)) for job in made] == before
    assert await fleet.rows.run("SELECT DISTINCT published_at, worker FROM jobs WHERE runner <> 'fleet'") == [(None, None), (None, "pod")]


async def test_a_pods_own_look_takes_its_row_and_no_other(fleet: Fleet) -> None:
    jobs = [await oom_killed(fleet, uid) for uid in ("u-1", "u-2")]
    fleets = await fleet.jobs.accept(a_request())
    assert await fleet.jobs.claim(jobs[1].id, POD, runner=runner_of("u-1")) is None
    assert await fleet.jobs.claim(fleets.id, POD, runner=runner_of("u-1")) is None
    again = await fleet.jobs.claim(jobs[0].id, POD, runner=runner_of("u-1"))
    assert again is not None
    assert (again.lapsed, again.resumed, again.fence) == (True, True, 2)


async def test_a_pods_row_outlives_the_deadline_of_the_fleets_and_has_one_of_its_own(fleet: Fleet) -> None:
    settings = job_settings()
    job = await suspended(fleet, "u-1")
    assert job.deadline_at - job.created_at == settings.pod_deadline > settings.deadline
    await fleet.jobs.sweep()
    assert (await fleet.jobs.get(None, job.id)).status is Status.PENDING
    await fleet.rows.make_late(job.id)
    async with fleet.running(fleet.relay(), fleet.worker(settings=job_settings(lease=timedelta(seconds=1)))):
        late = await until(lambda: fleet.jobs.get(None, job.id), lambda found: found.status.ended)
    assert (late.status, late.error_code) == (Status.FAILED, "job.deadline_exceeded")


@pytest.mark.parametrize("lapses", [True, False])
async def test_a_cancel_reaches_a_row_whether_its_pod_lives_or_not(fleet: Fleet, *, lapses: bool) -> None:
    repository: JobRepository = fleet.jobs
    job = await row_of(fleet, "u-1")
    claim = await repository.claim(job.id, POD, runner=runner_of("u-1"))
    assert claim is not None
    await repository.cancel_pods(["u-1"])
    if lapses:
        await fleet.rows.lapse(job.id)
        async with fleet.running(fleet.worker(settings=job_settings(lease=timedelta(seconds=1)))):
            found = await ended(fleet, job.id)
    else:
        assert (await repository.heartbeat(claim)).cancel_requested
        found = await repository.cancelled(claim)
    assert (found.status, found.error_code) == (Status.CANCELLED, "job.cancelled")
