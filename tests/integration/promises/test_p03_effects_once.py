"""P3: effects are idempotent: every job run a second time leaves the same knowledge."""

from __future__ import annotations

import asyncio

from shield.auth import LOCAL
from shield.service.models import IngestRequest, JobView
from tests.integration.conftest import Running
from tests.peers.site import Site


async def test_every_job_replayed_leaves_the_same_hash(running: Running) -> None:
    async with Site(pages=4) as site, running(egress={"allow": (site.allow,)}) as app:
        specs = [
            {"type": "document", "text": "The valve of Aachen opens at seven bar.", "source": "a"},
            {"type": "document", "text": "Inspector Lindqvist checks the valve of Aachen.", "source": "b"},
            {"type": "crawl", "url": site.url, "max_pages": 4, "render": "http", "refresh": True},
        ]

        async def run_all() -> list[JobView]:
            jobs = [await app.shield.ingest(LOCAL, IngestRequest.model_validate({"spec": spec})) for spec in specs]
            return await asyncio.gather(*(_ended(job) for job in jobs))

        async def _ended(job: JobView) -> JobView:
            async with asyncio.timeout(60):
                while job.finished_at is None:
                    job = await app.shield.job(LOCAL, job.job_id, wait=30)
            return job

        assert {job.status for job in await run_all()} == {"completed"}
        before = await app.shield.knowledge_base_hash(LOCAL, "default")
        again = await run_all()
        assert {outcome.status for job in again for outcome in job.outcomes} == {"unchanged"}
        assert await app.shield.knowledge_base_hash(LOCAL, "default") == before
