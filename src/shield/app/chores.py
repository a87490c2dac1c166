"""What has to be done now and then beside answering and working: queue metrics, expiry, sweeps of the index."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from shield.app.assembly import Answering, Core
from shield.app.observing import gauges
from shield.errors import DatabaseUnavailable, ShieldError
from shield.service.parts import Parts
from shield.service.webhooks import Dispatcher
from shield.sources.egress import EgressGuard

log = structlog.get_logger(__name__)

_CHORES_EVERY = 20  # rounds of housekeeping between two sweeps
_RECONCILE_EVERY = 2880  # rounds between two full scans for vectors that no document owns: about twice a day


async def warm_up(parts: Parts, stop: asyncio.Event) -> None:
    """Load the embedding model beside the rest of the start, so that the first question does not wait for it."""
    with contextlib.suppress(ShieldError):  # who asks first will be told
        await parts.embedder.embed_query("shield")
    await stop.wait()  # the parts of a process end together


def dispatcher(core: Core) -> Dispatcher:
    """Who sends the completion webhooks."""
    settings = core.settings
    return Dispatcher(core.engine, core.jobs, EgressGuard(settings.egress), settings.webhook, core.metrics.webhook)


async def housekeeping(assembly: Answering, stop: asyncio.Event) -> None:
    """Chores of a process that answers; a failure is logged and tried again next time.

    Several processes may do this at once: every step is idempotent, and most are guarded by a lock of their own.
    """
    parts, rounds = assembly.parts, 0
    while not stop.is_set():
        try:
            queue = await parts.jobs.stats()
            assembly.core.metrics.queue(gauges(queue))
            if rounds % _CHORES_EVERY == 0:
                await parts.uploads.expire()
                await assembly.sweeper.sweep()
            if rounds % _RECONCILE_EVERY == _RECONCILE_EVERY - 1:
                for summary in await parts.bases.summaries():
                    await assembly.sweeper.reconcile(summary.base)
        except DatabaseUnavailable:
            assembly.core.metrics.queue(None)
        except Exception as error:  # noqa: BLE001 - the loop must outlive any single failure; it is logged and tried again
            log.warning("housekeeping.failed", error=type(error).__name__)
        rounds += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), parts.settings.jobs.lease.total_seconds() / 2)
