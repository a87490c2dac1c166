"""Which controllers there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shield_operator.cluster import Cluster, Kind
from shield_operator.controller import Controller
from shield_operator.ingestjobs.job import Pods, read_template
from shield_operator.ingestjobs.reconcile import IngestJobs
from shield_operator.metrics import Metrics
from shield_operator.orchestrator import Orchestrator
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
    for watch in IngestJobs.watches:
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
    return [IngestJobs(settings, parts.cluster, parts.caches, parts.orchestrator, parts.metrics, pods=pods)]
