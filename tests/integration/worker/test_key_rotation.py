"""The language model's key is rotated while 200 jobs wait: none fails, none is charged an error, all complete after the fix."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shield.jobs.repository import JobRepository
from shield.knowledge.llm import create_llm
from shield.knowledge.metering import Ledger, MeteredLlm, Purpose
from shield.resilience import Breakers
from shield.settings import BreakerSettings, LlmSettings, seconds
from shield.worker.context import Completed, Ending, JobContext
from tests.integration.jobs.support import Rows, a_request, job_settings
from tests.integration.worker.support import Scripted, a_worker, running
from tests.peers.llm import LlmPeer, llm_peer

JOBS, PRINCIPALS = 200, 10


@pytest.fixture
async def peer() -> AsyncIterator[LlmPeer]:
    async with llm_peer() as peer:
        peer.reply = lambda _: "fine"
        peer.delay = 0
        yield peer


async def test_200_jobs_wait_for_a_rotated_key_and_none_fails(engine: AsyncEngine, rows: Rows, peer: LlmPeer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("old", encoding="utf-8")
    peer.key = "new"
    settings = LlmSettings(provider="openai", base_url=peer.url, model="small", api_key_file=key, max_tokens=100)
    breakers = Breakers(BreakerSettings(pause=seconds(0.3)))
    model = create_llm(settings, breakers)
    assert model is not None
    llm = MeteredLlm(model, Ledger(engine), settings, lambda *_: None)

    async def ask(context: JobContext) -> Ending:
        await llm.charged(Purpose.EXTRACT, context.job.id).complete("hello")
        return Completed()

    timing = job_settings(slots=4, relay=0.02, lease=30, heartbeat=10)
    jobs = JobRepository(engine, timing)
    for number in range(JOBS):
        await jobs.accept(a_request(principal=f"p{number % PRINCIPALS}", budget_tokens=10_000))

    async def states() -> Counter[str]:
        return Counter({row[0]: row[1] for row in await rows.run("SELECT status, count(*) FROM jobs GROUP BY 1")})

    async def until(statement: str) -> None:
        async with asyncio.timeout(40):
            while not (await rows.run(statement))[0][0]:
                await asyncio.sleep(0.05)

    with capture_logs() as logged:
        async with running(a_worker(jobs, Scripted(ask), timing)), running(a_worker(jobs, Scripted(ask), timing)):
            await until("SELECT count(*) >= 10 FROM jobs WHERE waiting_for = 'llm' AND fence > 0")
            assert await states() == {"pending": JOBS} or set(await states()) <= {"pending", "processing"}
            assert breakers.misconfigured()["llm"]
            refused = len(peer.keys)
            key.write_text("new", encoding="utf-8")
            await until(f"SELECT count(*) = {JOBS} FROM jobs WHERE finished_at IS NOT NULL")
    await llm.close()
    assert await states() == {"completed": JOBS}
    assert (await rows.run("SELECT sum(errors), sum(crashes), min(tokens), max(tokens) FROM jobs"))[0] == (0, 0, 18, 18)
    assert Counter(peer.keys[refused:])["Bearer new"] == JOBS
    assert refused <= 8 + len(
        [entry for entry in logged if entry["event"] == "dependency.misconfigured"]
    )  # those that were out, and the probes
    assert not breakers.misconfigured()["llm"]
