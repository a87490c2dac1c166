"""What a worker and a sweep tell reaches the metrics: stages, lapsed leases, ends, whoever brought them about."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.app.observing import JobMetrics
from shield.jobs.model import JobId, Stage, Status, WorkerId
from shield.jobs.relay import Relay
from shield.jobs.repository import JobRepository
from shield.telemetry.metrics import Metrics
from shield.worker.context import Completed, Ending, JobContext
from tests.integration.jobs.support import Rows, a_request, job_settings
from tests.integration.promises.support import redis_settings
from tests.integration.worker.support import Scripted, a_worker, ended, running
from tests.peers.valkey import Valkey


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One sample as it is scraped."""
    families = text_string_to_metric_families(metrics.render()[0].decode())
    return next((found.value for family in families for found in family.samples if (found.name, found.labels) == (name, labels)), None)


async def lapsed_job(engine: AsyncEngine, *, crashes: int = 0) -> JobId:
    """A job whose worker died."""
    jobs, rows = JobRepository(engine, job_settings()), Rows(engine)
    job_id = (await jobs.accept(a_request())).id
    await jobs.claim(job_id, WorkerId("dead"))
    await rows.run("UPDATE jobs SET crashes = :crashes WHERE id = :id", crashes=crashes, id=job_id)
    await rows.lapse(job_id)
    return job_id


async def test_a_worker_tells_of_the_lease_it_took_over_and_of_the_stages_it_went_through(engine: AsyncEngine) -> None:
    async def script(context: JobContext) -> Ending:
        await context.progress(stage=Stage.ACQUIRE)
        await context.progress(stage=Stage.INDEX)
        return Completed()

    metrics, jobs = Metrics(), JobRepository(engine, job_settings())
    job_id = await lapsed_job(engine)
    async with running(a_worker(jobs, Scripted(script), observer=JobMetrics(metrics).observer)):
        assert (await ended(jobs, job_id)).status is Status.COMPLETED
    assert value(metrics, "shield_lease_expiries_total") == 1
    assert [value(metrics, "shield_stage_duration_seconds_count", stage=stage) for stage in ("acquire", "index")] == [1, 1]
    assert value(metrics, "shield_jobs_finished_total", kind="crawl", status="completed") == 1
    assert value(metrics, "shield_jobs_failed_total", kind="crawl", code="job.retries_exhausted", fault="server") == 0


async def test_a_job_that_a_sweep_gives_up_is_counted_as_a_failure_and_a_lapsed_lease(engine: AsyncEngine, valkey: Valkey) -> None:
    from shield.jobs.streams import RedisPublisher

    metrics, settings, stop = Metrics(), job_settings(lease=0.5), asyncio.Event()
    jobs = JobRepository(engine, settings)
    job_id = await lapsed_job(engine, crashes=2)
    relay = Relay(engine, RedisPublisher(redis_settings(valkey)), settings, swept=JobMetrics(metrics).swept)
    task = asyncio.create_task(relay.run(stop))
    assert (await ended(jobs, job_id)).error_code == "job.retries_exhausted"
    async with asyncio.timeout(10):
        while value(metrics, "shield_jobs_finished_total", kind="crawl", status="failed") != 1:
            await asyncio.sleep(0.02)
    stop.set()
    await task
    assert value(metrics, "shield_jobs_failed_total", kind="crawl", code="job.retries_exhausted", fault="server") == 1
    assert value(metrics, "shield_lease_expiries_total") == 1
    assert value(metrics, "shield_job_duration_seconds_count", kind="crawl", outcome="failed") == 1
