"""The metrics of a process, in a registry of its own.

`tool_calls_total`, `tool_duration_seconds` and `circuit_breaker_state` are fixed names that SLOs, canaries and dashboards build
on; everything else is `shield_*`. Labels are bounded: a tool's registered name (else `unknown`), an error's code, a route's
template, an HTTP method of RFC 9110 (else `OTHER`); never an id, an address or a principal. Series of declared tools
exist from the start, so that the first error counts as an increase.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from shield import __version__
from shield.errors import ShieldError

CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
JOB_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

UNKNOWN = "unknown"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PLAIN = "text/plain; version=0.0.4; charset=utf-8"


class BreakerStates(Protocol):
    """Whoever knows the circuits: `shield.resilience.Breakers`."""

    def states(self) -> Mapping[str, int]:
        """0 closed, 1 half-open, 2 open, by service; called from the scraping thread."""

    def misconfigured(self) -> Mapping[str, bool]:
        """Whether a service refused our credential or model when it was last heard of; called from the scraping thread."""


class _StateCollector(Collector):
    """`circuit_breaker_state`, read when it is scraped; PostgreSQL and Redis, which have no breaker, show their last probe."""

    def __init__(self, breakers: BreakerStates | None) -> None:
        self._breakers = breakers
        self._probes: dict[str, int] = {}

    def probed(self, service: str, up: bool) -> None:
        self._probes[service] = 0 if up else 2

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("circuit_breaker_state", "0 closed, 1 half-open, 2 open.", labels=["service"])
        states = self._breakers.states() if self._breakers else {}
        for service, state in {**states, **self._probes}.items():
            family.add_metric([service], state)
        yield family
        refused = GaugeMetricFamily(
            "shield_dependency_misconfigured", "1 while a dependency refuses our credential or does not know our model.", labels=["service"]
        )
        for service, is_misconfigured in (self._breakers.misconfigured() if self._breakers else {}).items():
            refused.add_metric([service], int(is_misconfigured))
        yield refused


class Metrics:
    """What a process counts. Safe to use from any thread."""

    def __init__(self, breakers: BreakerStates | None = None, *, version: str = __version__) -> None:
        self.registry = CollectorRegistry()
        self._tools: frozenset[str] = frozenset()
        self._states = _StateCollector(breakers)
        self.registry.register(self._states)
        ProcessCollector(registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

        self._calls = counter("tool_calls_total", "MCP tool calls; status is started, success or error.", "tool_name", "status")
        self._call_seconds = histogram("tool_duration_seconds", "Duration of MCP tool calls.", CALL_BUCKETS, "tool_name")
        self._tool_errors = counter(
            "shield_tool_errors_total", "Failed tool calls; fault is caller, dependency or server.", "tool_name", "code", "fault"
        )
        self._requests = counter("shield_http_requests_total", "HTTP requests.", "route", "method", "status")
        self._request_seconds = histogram(
            "shield_http_request_duration_seconds", "Duration of HTTP requests.", CALL_BUCKETS, "route", "method"
        )
        self._jobs = gauge("shield_jobs", "Jobs in the queue now.", "status")
        self._oldest = gauge("shield_queue_oldest_seconds", "Age of the oldest job that waits.")
        self._job_seconds = histogram("shield_job_duration_seconds", "Duration of ended jobs.", JOB_BUCKETS, "kind", "outcome")
        self._jobs_finished = counter("shield_jobs_finished_total", "Ended jobs.", "kind", "status")
        self._documents = counter("shield_documents_total", "Documents and pages of jobs, by what became of them.", "status")
        self._llm_tokens = counter(
            "shield_llm_tokens_total",
            "Tokens of language models; purpose is extract, summarize or answer, direction in or out.",
            "purpose",
            "direction",
        )
        self._embedding_tokens = counter("shield_embedding_tokens_total", "Tokens that embedding endpoints counted.")
        self._webhooks = counter("shield_webhook_deliveries_total", "Tries of completion webhooks, by how they ended.", "result")
        self._hints = counter("shield_relay_hints_total", "Hints that the relay of this process published.")
        self._memory = gauge("shield_worker_memory_bytes", "Resident memory of a worker and its children.")
        self._above = gauge("shield_worker_memory_above_ceiling", "1 while a worker begins no job because of its memory.")
        gauge("shield_build_info", "Always 1; the version is the label.", "version").labels(version).set(1)

    # -- tools --------------------------------------------------------------------------------------------------------

    def declare_tools(self, names: Iterable[str]) -> None:
        """Make these the known tools, and their series start at 0."""
        known = frozenset(names)
        self._tools |= known
        for name in sorted({*known, UNKNOWN}):
            for status in ("started", "success", "error"):
                self._calls.labels(name, status)
            self._call_seconds.labels(name)

    def tool_started(self, tool: str) -> None:
        """A call begins."""
        self._calls.labels(self._known(tool), "started").inc()

    def tool_ended(self, tool: str, seconds: float, error: ShieldError | None = None) -> None:
        """A call was answered, with `error` or well. A call whose client went away is never told here."""
        name = self._known(tool)
        self._calls.labels(name, "error" if error else "success").inc()
        self._call_seconds.labels(name).observe(seconds)
        if error:
            self._tool_errors.labels(name, error.code, str(error.fault)).inc()

    def _known(self, tool: str) -> str:
        return tool if tool in self._tools else UNKNOWN

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    def http_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the template (`/jobs/{id}`), never the path."""
        verb = method if method in _METHODS else "OTHER"
        self._requests.labels(route, verb, str(status)).inc()
        self._request_seconds.labels(route, verb).observe(seconds)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def queue(self, jobs: Mapping[str, int], oldest_seconds: float) -> None:
        """How many jobs there are by status now, and how long the oldest has waited (0 = none waits)."""
        for status, count in jobs.items():
            self._jobs.labels(status).set(count)
        self._oldest.set(oldest_seconds)

    def job_finished(self, kind: str, status: str, seconds: float, outcome: str | None = None) -> None:
        """A job has ended; without an `outcome` (complete, partial) its status says how."""
        self._jobs_finished.labels(kind, status).inc()
        self._job_seconds.labels(kind, outcome or status).observe(seconds)

    def document(self, status: str, count: int = 1) -> None:
        """Documents or pages of a job were stored, unchanged, failed, skipped or deleted."""
        self._documents.labels(status).inc(count)

    # -- models -------------------------------------------------------------------------------------------------------

    def llm_tokens(self, purpose: str, tokens_in: int, tokens_out: int) -> None:
        """A call to a language model ended."""
        self._llm_tokens.labels(purpose, "in").inc(tokens_in)
        self._llm_tokens.labels(purpose, "out").inc(tokens_out)

    def embedding_tokens(self, tokens: int) -> None:
        """A call to an embedding endpoint ended."""
        self._embedding_tokens.inc(tokens)

    def webhook(self, result: str) -> None:
        """A completion webhook was delivered, will be retried, or failed for good."""
        self._webhooks.labels(result).inc()

    def hints(self, count: int) -> None:
        """The relay of this process published hints."""
        self._hints.inc(count)

    def memory(self, bytes_used: int, above: bool) -> None:
        """A worker measured itself and its children."""
        self._memory.set(bytes_used)
        self._above.set(above)

    # -- dependencies and exposition ----------------------------------------------------------------------------------

    def probed(self, service: str, up: bool) -> None:
        """PostgreSQL or Redis was asked whether it is there."""
        self._states.probed(service, up)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All series as text, and its content type: OpenMetrics if `accept` asks for it, else Prometheus' plain format."""
        if "application/openmetrics-text" in accept:
            return generate_openmetrics(self.registry), OPENMETRICS  # type: ignore[no-untyped-call]
        return generate_latest(self.registry), _PLAIN
