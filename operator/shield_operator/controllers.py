"""Which controllers there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shield_operator.bases.client import BaseClient
from shield_operator.bases.reconcile import BaseController
from shield_operator.cluster import INGESTJOBS, INGESTSCHEDULES, KNOWLEDGEBASES, Cluster, Key, Kind
from shield_operator.controller import Controller
from shield_operator.ingestjobs.job import Pods, read_template
from shield_operator.ingestjobs.reconcile import IngestJobs
from shield_operator.metrics import Metrics
from shield_operator.orchestrator import Orchestrator
from shield_operator.queue import Backoff, WorkQueue
from shield_operator.schedules.reconcile import ScheduleController
from shield_operator.settings import ConfigurationError, Settings
from shield_operator.watching import Cache, Watch


@dataclass(frozen=True)
class Parts:
    """What controllers are made of."""

    settings: Settings
    cluster: Cluster
    """Takes writes only while this process leads."""
    caches: Mapping[str, Cache]
    """By plural name."""
    orchestrator: Orchestrator | None
    metrics: Metrics


def watches_of() -> Sequence[Watch]:
    """Everything that is watched, each kind once."""
    watches: dict[Kind, Watch] = {}
    for watch in (*IngestJobs.watches, *ScheduleController.watches, *BaseController.watches):
        watches.setdefault(watch.kind, watch)
    return list(watches.values())


def build(parts: Parts) -> Sequence[Controller]:
    """All controllers.

    Raises:
        ConfigurationError: a setting that one needs is missing or wrong.
    """
    settings = parts.settings
    if not settings.worker_image:
        raise ConfigurationError("Set SHIELD_OPERATOR_WORKER_IMAGE to the image that ingests.")
    pods = Pods(settings.worker_image, read_template(settings.pod_template_file), settings.scratch_limit)
    bases = _bases(parts)
    jobs = IngestJobs(settings, parts.cluster, parts.caches, parts.orchestrator, parts.metrics, pods=pods, stored=bases.active)
    return [jobs, _schedules(parts), bases]


def _schedules(parts: Parts) -> ScheduleController:
    controller = ScheduleController(
        parts.caches[INGESTSCHEDULES.plural],
        parts.caches[INGESTJOBS.plural],
        parts.cluster,
        _queue(parts, ScheduleController.name),
        workers=parts.settings.workers,
        look_again=parts.settings.schedule_recheck,
        refused_pause=parts.settings.schedule_refused_pause,
    )
    parts.metrics.schedules_late.set_function(controller.late)
    return controller


def _bases(parts: Parts) -> BaseController:
    settings = parts.settings
    return BaseController(
        parts.caches[KNOWLEDGEBASES.plural],
        parts.cluster,
        BaseClient(parts.orchestrator) if parts.orchestrator is not None else None,
        _queue(parts, BaseController.name),
        workers=settings.base_workers,
        interval=settings.base_interval,
        deletion_interval=settings.base_deletion_interval,
        retry_pause=settings.base_retry_pause,
        heartbeat=settings.base_heartbeat,
    )


def _queue(parts: Parts, name: str) -> WorkQueue[Key]:
    return WorkQueue(name, parts.metrics, Backoff(parts.settings.backoff_base, parts.settings.backoff_most))
