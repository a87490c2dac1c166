"""What the parts tell, brought into the metrics; and the regular look at PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from shield.jobs.model import DOCUMENTS, Job, QueueStats, Swept
from shield.knowledge.graph.model import Observer as StepObserver
from shield.resilience.waiting import wait
from shield.service.parts import Probe
from shield.service.views import seconds_between
from shield.settings import Settings
from shield.telemetry.metrics import Metrics, QueueGauges
from shield.worker.observer import Observer


def gauges(queue: QueueStats) -> QueueGauges:
    """The queue as the metrics show it; what every worker of this release offers is not told."""
    workers = Counter[frozenset[str]]()
    for offers, count in queue.workers.items():
        workers[offers - {DOCUMENTS}] += count
    return QueueGauges(
        jobs={"pending": queue.pending, "processing": queue.processing, "parked": queue.parked},
        oldest={str(priority): age for priority, age in queue.oldest.items()},
        unpublished=queue.unpublished,
        graph_waiting=queue.graph_waiting,
        graph_oldest=queue.graph_oldest,
        workers=workers,
        slots=queue.slots,
    )


class JobMetrics:
    """Counts what workers and sweeps tell."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @property
    def observer(self) -> Observer:
        """What a worker is given."""
        return Observer(ended=self.ended, stage=self._metrics.stage, lapsed=self._metrics.lease_expired, swept=self.swept)

    def ended(self, job: Job) -> None:
        """A job has ended."""
        seconds = seconds_between(job.started_at or job.created_at, job.finished_at) or 0.0
        self._metrics.job_finished(job.kind, job.status, seconds, job.outcome, job.error_code)

    def swept(self, swept: Swept) -> None:
        """A sweep has ended jobs."""
        self._metrics.lease_expired(swept.lapsed)
        for job in swept.ended:
            self.ended(job)


def step_observer(metrics: Metrics) -> StepObserver:
    """What a graph runner is given."""
    return StepObserver(step=metrics.graph_step, waited=metrics.writer_waited)


async def watch(probes: Sequence[Probe], metrics: Metrics, settings: Settings, stop: asyncio.Event) -> None:
    """Ask these dependencies every `health.probe` until `stop` is set, and show whether they are there."""
    while not stop.is_set():
        for health in await asyncio.gather(*(probe() for probe in probes)):
            if health.status != "off":
                metrics.probed(health.name, up=health.status == "ok")
        await wait(stop, settings.health.probe.total_seconds())
