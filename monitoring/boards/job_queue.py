"""The job queue: from acceptance to knowledge, workers, graph, and operator."""

from __future__ import annotations

from monitoring.boards.queries import NS, levels, now, p95s, quantile, rate, rates
from monitoring.grafana import RATE, Dashboard, Panel, Query, Row, Unit, graph, stat


def board() -> Dashboard:
    """The page."""
    return Dashboard(
        "shield-job-queue",
        "Shield / Job queue",
        "From acceptance to knowledge: the queue, the workers, the graph, and the operator.",
        (
            Row("Queue", _queue()),
            Row("Work", _work()),
            Row("Workers and graph", _workers()),
            Row("IngestJobs and the operator", _operator()),
        ),
    )


def _queue() -> tuple[Panel, ...]:
    return (
        stat("Pending", "Jobs that wait.", f'max(shield_jobs{{{NS}, status="pending"}})', bad_above=100),
        stat(
            "Oldest",
            "How long the oldest job that could begin has waited.",
            f"max(shield_queue_oldest_seconds{{{NS}}})",
            unit=Unit.SECONDS,
            bad_above=300,
        ),
        stat(
            "Slots in use",
            "Share of all slots.",
            f"sum(shield_worker_busy_slots{{{NS}}}) / (sum(shield_worker_slots{{{NS}}}) > 0)",
            unit=Unit.RATIO,
        ),
        stat(
            "Given up today",
            "Jobs that were given up in 24 hours.",
            f'sum(increase(shield_jobs_failed_total{{{NS}, code="job.retries_exhausted"}}[1d]))',
            bad_above=1,
        ),
        stat("Leader", "Operators that lead; one is right.", f"sum(leader_election_master_status{{{NS}}})"),
        stat(
            "Late schedules",
            "IngestSchedules that missed two of their times.",
            f"max(shield_operator_schedules_late{{{NS}}})",
            bad_above=1,
        ),
        levels("Jobs by status", "Pending, processing, parked.", "shield_jobs", "status", stacked=True),
        levels(
            "Oldest by priority",
            "300 s is the objective's limit.",
            "shield_queue_oldest_seconds",
            "priority",
            unit=Unit.SECONDS,
            bad_above=300,
        ),
        graph(
            "Waiting without a hint",
            "Grows with the queue, or because no relay works.",
            Query(now("shield_queue_unpublished_seconds"), "oldest"),
            unit=Unit.SECONDS,
        ),
    )


def _work() -> tuple[Panel, ...]:
    return (
        rates("Jobs ended", "By kind and status.", "shield_jobs_finished_total", "kind, status"),
        graph(
            "Failures by code and fault",
            "A source's fault is none of ours.",
            Query(rate("shield_jobs_failed_total", "code, fault"), "{{code}} ({{fault}})"),
            unit=Unit.PER_SECOND,
        ),
        p95s("Duration p95 by kind", "From the first start to the end.", "shield_job_duration_seconds", "kind"),
        p95s("Stage p95", "Where jobs spend their time.", "shield_stage_duration_seconds", "stage"),
        rates("Documents by outcome", "Stored, unchanged, failed, skipped, deleted.", "shield_documents_total", "status"),
        rates("Pages by outcome", "What crawls met.", "shield_crawl_pages_total", "code"),
    )


def _workers() -> tuple[Panel, ...]:
    return (
        levels("Workers", "By what they offer, as the orchestrator sees them.", "shield_fleet_workers", "offers", width=6),
        graph(
            "Slots",
            "In use, and there are.",
            Query(f"sum(shield_worker_busy_slots{{{NS}}})", "in use"),
            Query(f"sum(shield_worker_slots{{{NS}}})", "all"),
            width=6,
        ),
        levels("Memory of workers", "With their children.", "shield_worker_memory_bytes", "instance", unit=Unit.BYTES, width=6),
        graph(
            "Leases that ran out",
            "A worker died, or was cut off.",
            Query(f"sum by (job) (increase(shield_lease_expiries_total{{{NS}}}[5m]))", "{{job}}"),
            width=6,
        ),
        graph("Graph steps waiting", "Or being done.", Query(now("shield_graph_waiting"), "steps"), width=6),
        graph(
            "Graph behind",
            "Age of the oldest step that is not through; 900 s is the objective's limit.",
            Query(now("shield_graph_oldest_seconds"), "oldest"),
            unit=Unit.SECONDS,
            width=6,
            bad_above=900,
        ),
        rates("Graph steps by result", "Tries of graph steps.", "shield_graph_steps_total", "operation, result", width=6),
        p95s("Wait for the writer p95", "One knowledge base has one writer.", "shield_graph_writer_wait_seconds", width=6),
    )


def _operator() -> tuple[Panel, ...]:
    operator = 'job="shield-operator"'
    return (
        graph(
            "IngestJob to Job",
            "p95 from creation, and from when the operator heard of it: the rest is the cluster's.",
            Query(quantile(0.95, "shield_operator_ingestjob_job_latency_seconds"), "from creation"),
            Query(quantile(0.95, "shield_operator_ingestjob_controller_latency_seconds"), "operator's part"),
            unit=Unit.SECONDS,
        ),
        rates("IngestJobs ended", "By outcome.", "shield_operator_ingestjobs_ended_total", "outcome"),
        rates(
            "Reconciles by result",
            "Errors come again, later and later.",
            "controller_runtime_reconcile_total",
            "controller, result",
            operator,
        ),
        p95s("Reconcile p95", "How long one takes.", "controller_runtime_reconcile_time_seconds", "controller", operator),
        levels("Operator's queue", "Keys that wait.", "workqueue_depth", "name", operator),
        p95s("Wait in the queue p95", "10 s is too long.", "workqueue_queue_duration_seconds", "name", operator, bad_above=10),
        graph(
            "Ages",
            "Since the watches were confirmed, since progress was heard, since the slowest IngestJob moved.",
            Query(now("shield_operator_confirmed_age_seconds", "instance"), "confirmed {{instance}}"),
            Query(now("shield_operator_progress_age_seconds", "instance"), "progress {{instance}}"),
            Query(now("shield_operator_ingestjob_stalled_seconds"), "standstill"),
            unit=Unit.SECONDS,
        ),
        graph(
            "Held back",
            "Share of the time in which new Jobs waited for their turn.",
            Query(f"sum(rate(shield_operator_job_creation_throttled_seconds_total{{{NS}}}[{RATE}]))", "throttled"),
        ),
        levels("Objects known", "From watches.", "shield_operator_cached_objects", "kind"),
    )
