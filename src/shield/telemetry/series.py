"""Every series a process may show: its name, type, labels, meaning, and which processes have it.

`Metrics` registers what its process has and nothing else, so a series that a process cannot fill does not stand there as a 0.
`docs/METRICS.md` is written from this table. A label is bounded by what `LABELS` says about it: never an id, an address or a principal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
JOB_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900)


class Role(StrEnum):
    """What a process is."""

    UP = "up"
    API = "api"
    MCP = "mcp"
    WORKER = "worker"
    PROBE = "probe"


_ALL = tuple(Role)
_SERVES = (Role.UP, Role.API, Role.MCP, Role.WORKER)
_TOOLS = (Role.UP, Role.MCP)
_HTTP = (Role.UP, Role.API, Role.MCP)
_ANSWERS = (Role.UP, Role.API)
_WORKS = (Role.UP, Role.WORKER)
_DATABASE = (Role.UP, Role.API, Role.WORKER)
_PROBES = (Role.PROBE,)


@dataclass(frozen=True)
class Series:
    """One series, under the name it is scraped by."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    where: tuple[Role, ...] = _ALL
    buckets: tuple[float, ...] = ()


LABELS: Mapping[str, str] = {
    "tool_name": "a registered tool, else `unknown`",
    "status": "a state of calls, jobs or documents; of requests the HTTP status",
    "service": "`orchestrator`, `qdrant`, `embedding`, `shadow`, `llm`, `postgres`, `redis`",
    "code": "a code of docs/errors, `ok` where there was none, else `unknown`",
    "fault": "`caller`, `dependency`, `server`",
    "found": "`true`, `false`",
    "route": "a route's template (`/jobs/{job_id}`), else `unmatched`",
    "method": "a method of RFC 9110, else `OTHER`",
    "priority": "`high`, `normal`, `low`",
    "kind": "`crawl`, `ingest`, `delete`, `reindex`, `rebuild`",
    "outcome": "`complete`, `partial`, or the status of a job that has none",
    "stage": "a job's stage: `acquire`, `convert`, `index`, `graph`, `delete`",
    "offers": "what a worker can do beyond the common: `browser`, `ocr`, `browser+ocr`, `none`; anything else is `other`",
    "operation": "`read`, `add`, `remove`",
    "result": "of a graph step `done`, `superseded`, `unread`, `postponed`, `handed_back`, `failed`; "
    "of a delivery `delivered`, `retried`, `failed`; of a probe `ok`, `error` (the tool failed), `unreachable` (no answer of MCP), `timeout`",
    "purpose": "`extract`, `summarize`, `answer`",
    "direction": "`in`, `out`",
    "version": "the version of Shield",
}
"""Which values each label can have."""

# -- tools and HTTP -------------------------------------------------------------------------------------------------------

TOOL_CALLS = Series("tool_calls_total", "counter", "MCP tool calls; status is started, success or error.", ("tool_name", "status"), _TOOLS)
TOOL_SECONDS = Series("tool_duration_seconds", "histogram", "Duration of MCP tool calls.", ("tool_name",), _TOOLS, CALL_BUCKETS)
TOOL_ERRORS = Series(
    "shield_tool_errors_total",
    "counter",
    "Failed tool calls; fault is caller, dependency or server.",
    ("tool_name", "code", "fault"),
    _TOOLS,
)
TOOL_ANSWERS = Series(
    "shield_tool_answers_total",
    "counter",
    "Answers of the tools that look something up, by whether anything was found.",
    ("tool_name", "found"),
    _TOOLS,
)
REQUESTS = Series("shield_http_requests_total", "counter", "HTTP requests.", ("route", "method", "status"), _HTTP)
REQUEST_SECONDS = Series(
    "shield_http_request_duration_seconds", "histogram", "Duration of HTTP requests.", ("route", "method"), _HTTP, CALL_BUCKETS
)

# -- the queue, as the database has it: the same from every orchestrator --------------------------------------------------

JOBS = Series(
    "shield_jobs",
    "gauge",
    "Jobs of the fleet now: pending, processing, or parked until their graph steps are through.",
    ("status",),
    _ANSWERS,
)
QUEUE_AGE = Series("shield_queue_oldest_seconds", "gauge", "How long the oldest job that could begin has waited.", ("priority",), _ANSWERS)
UNPUBLISHED = Series(
    "shield_queue_unpublished_seconds",
    "gauge",
    "How long the oldest job that could begin has waited without a hint to the workers; grows with the queue, or because no relay works.",
    (),
    (Role.API,),
)
GRAPH_WAITING = Series("shield_graph_waiting", "gauge", "Graph steps that wait or are being done.", (), _ANSWERS)
GRAPH_AGE = Series("shield_graph_oldest_seconds", "gauge", "Age of the oldest graph step that is not through.", (), _ANSWERS)
FLEET_WORKERS = Series("shield_fleet_workers", "gauge", "Workers seen within a lease, by what they offer.", ("offers",), (Role.API,))
FLEET_SLOTS = Series("shield_fleet_slots", "gauge", "Jobs that the live workers can run at once.", (), (Role.API,))
HINTS = Series("shield_relay_hints_total", "counter", "Hints that the relay of this process published.", (), (Role.API,))

# -- jobs -----------------------------------------------------------------------------------------------------------------

JOBS_FINISHED = Series(
    "shield_jobs_finished_total", "counter", "Jobs that a worker or a sweep of this process ended.", ("kind", "status"), _DATABASE
)
JOB_SECONDS = Series(
    "shield_job_duration_seconds",
    "histogram",
    "Duration of ended jobs from their first start.",
    ("kind", "outcome"),
    _DATABASE,
    JOB_BUCKETS,
)
JOBS_FAILED = Series(
    "shield_jobs_failed_total",
    "counter",
    "Jobs that failed, by the code of their error and whose fault it is; those given up (the dead-letter list) have `job.retries_exhausted`.",
    ("kind", "code", "fault"),
    _DATABASE,
)
LEASE_EXPIRIES = Series(
    "shield_lease_expiries_total",
    "counter",
    "Leases of running jobs that ran out, found by this process: a worker died, or was cut off from the database.",
    (),
    _DATABASE,
)
STAGE_SECONDS = Series(
    "shield_stage_duration_seconds",
    "histogram",
    "Time that a run of a job spent in a stage, however it left it.",
    ("stage",),
    _WORKS,
    JOB_BUCKETS,
)
DOCUMENTS = Series("shield_documents_total", "counter", "Documents and pages of jobs, by what became of them.", ("status",), _WORKS)
CRAWL_PAGES = Series("shield_crawl_pages_total", "counter", "Pages that crawls met, by the code of their outcome.", ("code",), _WORKS)

# -- workers --------------------------------------------------------------------------------------------------------------

SLOTS = Series("shield_worker_slots", "gauge", "Jobs that this worker can run at once.", (), _WORKS)
BUSY_SLOTS = Series("shield_worker_busy_slots", "gauge", "Jobs that this worker runs now.", (), _WORKS)
MEMORY = Series("shield_worker_memory_bytes", "gauge", "Resident memory of a worker and its children.", (), _WORKS)
ABOVE_CEILING = Series("shield_worker_memory_above_ceiling", "gauge", "1 while a worker begins no job because of its memory.", (), _WORKS)
GRAPH_STEPS = Series("shield_graph_steps_total", "counter", "Tries of graph steps, by how they ended.", ("operation", "result"), _WORKS)
WRITER_WAIT = Series(
    "shield_graph_writer_wait_seconds",
    "histogram",
    "How long a graph step that could be written waited until the writer of its knowledge base began it.",
    (),
    _WORKS,
    WAIT_BUCKETS,
)

# -- models and other dependencies ----------------------------------------------------------------------------------------

LLM_TOKENS = Series(
    "shield_llm_tokens_total",
    "counter",
    "Tokens of language models; purpose is extract, summarize or answer, direction in or out.",
    ("purpose", "direction"),
    _DATABASE,
)
EMBEDDING_TOKENS = Series("shield_embedding_tokens_total", "counter", "Tokens that embedding endpoints counted.", (), _DATABASE)
DEPENDENCY_CALLS = Series(
    "shield_dependency_calls_total",
    "counter",
    "Calls behind a circuit breaker, by how they ended; `dependency.circuit_open` was refused without a call.",
    ("service", "code"),
    _SERVES,
)
DEPENDENCY_SECONDS = Series(
    "shield_dependency_call_duration_seconds",
    "histogram",
    "Duration of calls behind a circuit breaker.",
    ("service",),
    _SERVES,
    (*CALL_BUCKETS, 30, 60, 120),
)
BREAKER = Series(
    "circuit_breaker_state",
    "gauge",
    "0 closed, 1 half-open, 2 open; PostgreSQL and Redis, which have no breaker, show their last probe: 0 there, 2 away.",
    ("service",),
    _SERVES,
)
MISCONFIGURED = Series(
    "shield_dependency_misconfigured",
    "gauge",
    "1 while a dependency refuses our credential or does not know our model.",
    ("service",),
    _SERVES,
)
WEBHOOKS = Series("shield_webhook_deliveries_total", "counter", "Tries of completion webhooks, by how they ended.", ("result",), _ANSWERS)

# -- the synthetic probe --------------------------------------------------------------------------------------------------

PROBE_SUCCESS = Series("shield_probe_success", "gauge", "1 if the last synthetic tool call succeeded, else 0.", (), _PROBES)
PROBE_TIME = Series("shield_probe_last_timestamp_seconds", "gauge", "When the last synthetic tool call ended.", (), _PROBES)
PROBES = Series("shield_probes_total", "counter", "Synthetic tool calls, by how they ended.", ("result",), _PROBES)
PROBE_SECONDS = Series(
    "shield_probe_duration_seconds", "histogram", "Duration of synthetic tool calls, connecting included.", (), _PROBES, CALL_BUCKETS
)

# -- the process ----------------------------------------------------------------------------------------------------------

LOOP_LAG = Series(
    "shield_event_loop_lag_seconds", "gauge", "How far the event loop lags behind now; /livez fails above SHIELD_HEALTH_MAX_LAG."
)
BUILD = Series("shield_build_info", "gauge", "Always 1; the version is the label.", ("version",))

SERIES: tuple[Series, ...] = tuple(item for item in globals().copy().values() if isinstance(item, Series))
"""All of them, in the order above."""
