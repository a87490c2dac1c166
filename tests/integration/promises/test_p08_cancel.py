"""P8: a cancel takes effect within a heartbeat, wherever the job runs, and a job that waits is cancelled at once."""

from __future__ import annotations

import time

from shield.jobs.model import Status
from tests.integration.jobs.support import a_request
from tests.integration.promises.support import BREATH, Fleet, ended
from tests.integration.worker.support import Scripted, deaf


async def test_a_cancel_takes_effect_within_a_heartbeat_and_the_slot_is_free(fleet: Fleet) -> None:
    handler = Scripted(deaf)
    job = await fleet.jobs.accept(a_request())
    async with fleet.running(fleet.relay(), fleet.worker(handler)):
        await handler.begun.wait()
        asked_at = time.monotonic()
        await fleet.jobs.request_cancel("ada", job.id)
        assert (await ended(fleet, job.id)).status is Status.CANCELLED
        assert time.monotonic() - asked_at < 0.6 + BREATH


async def test_a_waiting_job_is_cancelled_at_once_and_its_hint_leads_nowhere(fleet: Fleet) -> None:
    job = await fleet.jobs.accept(a_request())
    handler = Scripted()
    async with fleet.running(fleet.relay()):
        await fleet.hinted()
        assert (await fleet.jobs.request_cancel("ada", job.id)).status is Status.CANCELLED
        async with fleet.running(fleet.worker(handler)):
            await fleet.unhinted()
    assert handler.runs == []
