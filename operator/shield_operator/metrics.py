"""What the operator counts, under the names that controller-runtime made common, so that dashboards for any operator fit this one.

Labels are bounded: a controller's or queue's name, a result, a word for an error; never an object's name or uid. Gauges of a queue are read
at scrape time.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shield_operator import __version__

_SHORT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_QUEUE = (1e-4, 1e-3, 0.01, 0.1, 1, 10, 100, 1000)
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)


class Metrics:
    """All of one process's metrics, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        made = self.registry
        self.reconciles = Counter(
            "controller_runtime_reconcile_total", "Reconciles, by how they ended.", ["controller", "result"], registry=made
        )
        self.reconcile_errors = Counter(
            "controller_runtime_reconcile_errors_total", "Reconciles that failed and are tried again.", ["controller"], registry=made
        )
        self.reconcile_time = Histogram(
            "controller_runtime_reconcile_time_seconds", "How long a reconcile took.", ["controller"], buckets=_SHORT, registry=made
        )
        self.reconcile_workers = Gauge(
            "controller_runtime_max_concurrent_reconciles", "How many reconciles may run at once.", ["controller"], registry=made
        )
        self.active_workers = Gauge("controller_runtime_active_workers", "Reconciles that run now.", ["controller"], registry=made)
        self.error_causes = Counter(
            "shield_operator_reconcile_error_causes_total", "Failed reconciles, by cause.", ["controller", "cause"], registry=made
        )
        self.depth = Gauge("workqueue_depth", "Keys that wait.", ["name"], registry=made)
        self.adds = Counter("workqueue_adds_total", "Keys added.", ["name"], registry=made)
        self.queue_time = Histogram("workqueue_queue_duration_seconds", "How long a key waited.", ["name"], buckets=_QUEUE, registry=made)
        self.work_time = Histogram(
            "workqueue_work_duration_seconds", "How long the work on a key took.", ["name"], buckets=_QUEUE, registry=made
        )
        self.retries = Counter("workqueue_retries_total", "Keys added again after a failure.", ["name"], registry=made)
        self.unfinished = Gauge("workqueue_unfinished_work_seconds", "Age of all work that runs now, summed.", ["name"], registry=made)
        self.longest = Gauge(
            "workqueue_longest_running_processor_seconds", "Age of the oldest work that runs now.", ["name"], registry=made
        )
        self.leader = Gauge("leader_election_master_status", "1 if this process leads.", ["name"], registry=made)
        self.job_latency = Histogram(
            "shield_operator_ingestjob_job_latency_seconds",
            "From an IngestJob's creation (whole seconds, as the API server writes it) to its Job.",
            buckets=_LONG,
            registry=made,
        )
        self.controller_latency = Histogram(
            "shield_operator_ingestjob_controller_latency_seconds",
            "From the moment the operator heard of an IngestJob to its Job: our part of the above.",
            buckets=_LONG,
            registry=made,
        )
        self.first_document = Histogram(
            "shield_ingestjob_first_document_seconds",
            "From an IngestJob's creation to the first status that tells of a stored document; observed once for each.",
            buckets=_LONG,
            registry=made,
        )
        self.ended = Counter("shield_operator_ingestjobs_ended_total", "IngestJobs that ended, by outcome.", ["outcome"], registry=made)
        self.throttled = Counter(
            "shield_operator_job_creation_throttled_seconds_total", "How long Job creations waited for their turn.", registry=made
        )
        self.progress_age = Gauge(
            "shield_operator_progress_age_seconds", "Time since the orchestrator last told the progress of the active jobs.", registry=made
        )
        self.stalled = Gauge(
            "shield_operator_ingestjob_stalled_seconds",
            "How long the active IngestJob that has waited longest has shown no progress; 0 if none is active.",
            registry=made,
        )
        self.schedules_late = Gauge(
            "shield_operator_schedules_late",
            "IngestSchedules of which two times have passed since their last success; suspended ones do not count.",
            registry=made,
        )
        self.rows_cancelled = Counter(
            "shield_operator_rows_cancelled_total", "Cancellations sent to the orchestrator, by why.", ["why"], registry=made
        )
        self.stale_watches = Counter(
            "shield_operator_stale_watches_total", "Watches that did not deliver what a list saw.", ["kind"], registry=made
        )
        self.confirmed_age = Gauge(
            "shield_operator_confirmed_age_seconds", "Time since the watches were last found to agree with a fresh list.", registry=made
        )
        self.cached = Gauge("shield_operator_cached_objects", "Objects known from watches.", ["kind"], registry=made)
        self.loop_lag = Gauge("shield_operator_event_loop_lag_seconds", "How late the event loop was in its last check.", registry=made)
        build = Gauge("shield_operator_build_info", "Always 1; the labels tell what runs.", ["version", "python"], registry=made)
        build.labels(__version__, platform.python_version()).set(1)

    def queue(self, name: str) -> QueueMetrics:
        """The metrics of one queue."""
        return QueueMetrics(self, name)


class QueueMetrics:
    """What a queue tells as it works."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._metrics = metrics
        self._name = name
        self._adds, self._retries = metrics.adds.labels(name), metrics.retries.labels(name)
        self._queue_time, self._work_time = metrics.queue_time.labels(name), metrics.work_time.labels(name)

    def watch(self, depth: Callable[[], float], unfinished: Callable[[], float], longest: Callable[[], float]) -> None:
        """Read these at scrape time."""
        self._metrics.depth.labels(self._name).set_function(depth)
        self._metrics.unfinished.labels(self._name).set_function(unfinished)
        self._metrics.longest.labels(self._name).set_function(longest)

    def added(self) -> None:
        """A key was added that did not wait yet."""
        self._adds.inc()

    def retried(self) -> None:
        """A key will come again after a failure."""
        self._retries.inc()

    def taken(self, waited: float) -> None:
        """Work on a key begins."""
        self._queue_time.observe(waited)

    def done(self, worked: float) -> None:
        """Work on a key is over."""
        self._work_time.observe(worked)
