"""The metrics of a process, in a registry of its own.

`tool_calls_total`, `tool_duration_seconds` and `circuit_breaker_state` are fixed names that SLOs, canaries and dashboards build
on; everything else is `shield_*` (the table is in `series.py`). A process shows the series of its role only. Labels are bounded: a tool's
registered name (else `unknown`), an error's code, a route's template, an HTTP method of RFC 9110 (else `OTHER`); never an id, an address
or a principal. Series of declared tools exist from the start, so that the first error counts as an increase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from shield import __version__
from shield.errors import Fault, InternalError, RetriesExhausted, ShieldError, leaf_errors
from shield.telemetry import series
from shield.telemetry.series import Role, Series

OK = "ok"
UNKNOWN = "unknown"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OFFERS = frozenset({"browser", "ocr"})
_JOB_KINDS = ("crawl", "ingest", "delete", "reindex", "rebuild")
_CALL_AREAS = frozenset({"auth", "dependency", "query", "quota", "request"})
"""Where the codes of failed tool calls are from; the others are outcomes of jobs and documents."""
_PLAIN = "text/plain; version=0.0.4; charset=utf-8"


class BreakerStates(Protocol):
    """Whoever knows the circuits: `shield.resilience.Breakers`."""

    def states(self) -> Mapping[str, int]:
        """0 closed, 1 half-open, 2 open, by service; called from the scraping thread."""

    def misconfigured(self) -> Mapping[str, bool]:
        """Whether a service refused our credential or model when it was last heard of; called from the scraping thread."""


@dataclass(frozen=True)
class QueueGauges:
    """The queue and the fleet at one moment."""

    jobs: Mapping[str, int]
    """Jobs by status."""
    oldest: Mapping[str, float]
    """Seconds that the oldest job that could begin has waited, by priority; 0 = none waits."""
    unpublished: float = 0.0
    """The same of those without a hint."""
    graph_waiting: int = 0
    graph_oldest: float = 0.0
    workers: Mapping[frozenset[str], int] | None = None
    """Live workers by what they offer."""
    slots: int = 0


class _StateCollector(Collector):
    """`circuit_breaker_state`, read when it is scraped; PostgreSQL and Redis, which have no breaker, show their last probe."""

    def __init__(self, breakers: BreakerStates | None) -> None:
        self.breakers = breakers
        self._probes: dict[str, int] = {}

    def probed(self, service: str, up: bool) -> None:
        self._probes[service] = 0 if up else 2

    def collect(self) -> Iterator[GaugeMetricFamily]:
        states = self.breakers.states() if self.breakers else {}
        yield _family(series.BREAKER, {(service,): state for service, state in {**states, **self._probes.copy()}.items()})
        misconfigured = self.breakers.misconfigured() if self.breakers else {}
        yield _family(series.MISCONFIGURED, {(service,): int(refused) for service, refused in misconfigured.items()})


class _QueueCollector(Collector):
    """The queue's gauges from one look at the database: all of one moment, and none while it does not answer."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self.latest: QueueGauges | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        seen = self.latest
        if seen is None:
            return
        workers: dict[tuple[str, ...], float] = {("none",): 0}
        for offers, count in (seen.workers or {}).items():
            label = (_offers(offers),)
            workers[label] = workers.get(label, 0) + count
        values: list[tuple[Series, Mapping[tuple[str, ...], float]]] = [
            (series.JOBS, {(status,): count for status, count in seen.jobs.items()}),
            (series.QUEUE_AGE, {(priority,): age for priority, age in seen.oldest.items()}),
            (series.UNPUBLISHED, {(): seen.unpublished}),
            (series.GRAPH_WAITING, {(): seen.graph_waiting}),
            (series.GRAPH_AGE, {(): seen.graph_oldest}),
            (series.FLEET_WORKERS, workers),
            (series.FLEET_SLOTS, {(): seen.slots}),
        ]
        yield from (_family(item, samples) for item, samples in values if self._role in item.where)


class _ProbeCollector(Collector):
    """How the last synthetic call ended, and when; nothing before the first one."""

    def __init__(self) -> None:
        self.last: tuple[bool, float] | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        last = self.last
        yield _family(series.PROBE_SUCCESS, {(): int(last[0])} if last else {})
        yield _family(series.PROBE_TIME, {(): last[1]} if last else {})


class Metrics:
    """What a process counts. Safe to use from any thread; what its role does not show is counted for nobody."""

    def __init__(self, breakers: BreakerStates | None = None, *, version: str = __version__, role: Role = Role.UP) -> None:
        self.registry = CollectorRegistry()
        self._role = role
        self._tools: frozenset[str] = frozenset()
        self._faults = {code: error.fault for code, error in leaf_errors().items()}
        self._states = _StateCollector(breakers)
        self._queue = _QueueCollector(role)
        self._probe = _ProbeCollector()
        for collector, item in ((self._states, series.BREAKER), (self._queue, series.JOBS), (self._probe, series.PROBE_SUCCESS)):
            if role in item.where:
                self.registry.register(collector)
        ProcessCollector(registry=self.registry)
        self._calls = self._counter(series.TOOL_CALLS)
        self._call_seconds = self._histogram(series.TOOL_SECONDS)
        self._tool_errors = self._counter(series.TOOL_ERRORS)
        self._tool_answers = self._counter(series.TOOL_ANSWERS)
        self._requests = self._counter(series.REQUESTS)
        self._request_seconds = self._histogram(series.REQUEST_SECONDS)
        self._jobs_finished = self._counter(series.JOBS_FINISHED)
        self._jobs_failed = self._counter(series.JOBS_FAILED)
        for kind in _JOB_KINDS:
            self._jobs_failed.labels(kind, RetriesExhausted.code, str(RetriesExhausted.fault))
        self._job_seconds = self._histogram(series.JOB_SECONDS)
        self._lease_expiries = self._counter(series.LEASE_EXPIRIES)
        self._stage_seconds = self._histogram(series.STAGE_SECONDS)
        self._documents = self._counter(series.DOCUMENTS)
        self._crawl_pages = self._counter(series.CRAWL_PAGES)
        self._graph_steps = self._counter(series.GRAPH_STEPS)
        self._writer_wait = self._histogram(series.WRITER_WAIT)
        self._llm_tokens = self._counter(series.LLM_TOKENS)
        self._embedding_tokens = self._counter(series.EMBEDDING_TOKENS)
        self._dependency_calls = self._counter(series.DEPENDENCY_CALLS)
        self._dependency_seconds = self._histogram(series.DEPENDENCY_SECONDS)
        self._webhooks = self._counter(series.WEBHOOKS)
        self._hints = self._counter(series.HINTS)
        self._slots = self._gauge(series.SLOTS)
        self._busy_slots = self._gauge(series.BUSY_SLOTS)
        self._memory = self._gauge(series.MEMORY)
        self._above = self._gauge(series.ABOVE_CEILING)
        self._probes = self._counter(series.PROBES)
        for result in (OK, "error", "unreachable", "timeout"):
            self._probes.labels(result)
        self._probe_seconds = self._histogram(series.PROBE_SECONDS)
        self._loop_lag = self._gauge(series.LOOP_LAG)
        self._gauge(series.BUILD).labels(version).set(1)

    def _counter(self, item: Series) -> Counter:
        return Counter(item.name, item.meaning, item.labels, registry=self._registry_of(item))

    def _gauge(self, item: Series) -> Gauge:
        return Gauge(item.name, item.meaning, item.labels, registry=self._registry_of(item))

    def _histogram(self, item: Series) -> Histogram:
        return Histogram(item.name, item.meaning, item.labels, buckets=item.buckets, registry=self._registry_of(item))

    def _registry_of(self, item: Series) -> CollectorRegistry | None:
        return self.registry if self._role in item.where else None

    # -- tools --------------------------------------------------------------------------------------------------------

    def declare_tools(self, names: Iterable[str], looking_up: Iterable[str] = ()) -> None:
        """Make these the known tools, and their series start at 0; so do those of failures that are not the caller's.

        Args:
            names: all of them.
            looking_up: those whose answers say whether anything was found.
        """
        known = frozenset(names)
        self._tools |= known
        ours = [
            (code, fault) for code, fault in self._faults.items() if fault is not Fault.CALLER and code.partition(".")[0] in _CALL_AREAS
        ]
        for name in sorted(known):
            for code, fault in ours:
                self._tool_errors.labels(name, code, str(fault))
        for name in sorted(looking_up):
            for found in ("true", "false"):
                self._tool_answers.labels(name, found)
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
            self._tool_errors.labels(name, self._code(error.code), str(error.fault)).inc()

    def tool_answered(self, tool: str, found: bool) -> None:
        """A tool that looks something up found it, or nothing."""
        self._tool_answers.labels(self._known(tool), "true" if found else "false").inc()

    def _known(self, tool: str) -> str:
        return tool if tool in self._tools else UNKNOWN

    def _code(self, code: str | None) -> str:
        return OK if code is None else code if code in self._faults else UNKNOWN

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    def http_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the template (`/jobs/{id}`), never the path."""
        verb = method if method in _METHODS else "OTHER"
        self._requests.labels(route, verb, str(status)).inc()
        self._request_seconds.labels(route, verb).observe(seconds)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def queue(self, seen: QueueGauges | None) -> None:
        """What a look at the queue has shown; None if the database did not answer."""
        self._queue.latest = seen

    def job_finished(self, kind: str, status: str, seconds: float, outcome: str | None = None, code: str | None = None) -> None:
        """A job has ended; without an `outcome` (complete, partial) its status says how, and if it failed, `code` says why."""
        self._jobs_finished.labels(kind, status).inc()
        self._job_seconds.labels(kind, outcome or status).observe(seconds)
        if status == "failed":
            self._jobs_failed.labels(kind, self._code(code), str(self._faults.get(code or "", InternalError.fault))).inc()

    def lease_expired(self, count: int = 1) -> None:
        """The lease of a running job had run out."""
        self._lease_expiries.inc(count)

    def stage(self, stage: str, seconds: float) -> None:
        """A run of a job left a stage."""
        self._stage_seconds.labels(stage).observe(seconds)

    def document(self, status: str, count: int = 1) -> None:
        """Documents or pages of a job were stored, unchanged, failed, skipped or deleted."""
        self._documents.labels(status).inc(count)

    def crawl_page(self, code: str | None) -> None:
        """A page of a crawl has its outcome; without a code it is known now."""
        self._crawl_pages.labels(self._code(code)).inc()

    def graph_step(self, operation: str, result: str) -> None:
        """A try of a graph step ended."""
        self._graph_steps.labels(operation, result).inc()

    def writer_waited(self, seconds: float) -> None:
        """A graph step begins; it could have begun that long ago."""
        self._writer_wait.observe(seconds)

    # -- models and other dependencies --------------------------------------------------------------------------------

    def llm_tokens(self, purpose: str, tokens_in: int, tokens_out: int) -> None:
        """A call to a language model ended."""
        self._llm_tokens.labels(purpose, "in").inc(tokens_in)
        self._llm_tokens.labels(purpose, "out").inc(tokens_out)

    def embedding_tokens(self, tokens: int) -> None:
        """A call to an embedding endpoint ended."""
        self._embedding_tokens.inc(tokens)

    def dependency_call(self, service: str, seconds: float | None, error: Exception | None) -> None:
        """A call behind a breaker ended, with `error` or well; without `seconds` it was refused before it began."""
        code = self._code(error.code) if isinstance(error, ShieldError) else UNKNOWN if error else OK
        self._dependency_calls.labels(service, code).inc()
        if seconds is not None:
            self._dependency_seconds.labels(service).observe(seconds)

    def circuits(self, breakers: BreakerStates) -> None:
        """Show the states of these circuits from now on."""
        self._states.breakers = breakers

    def probed(self, service: str, up: bool) -> None:
        """PostgreSQL or Redis was asked whether it is there."""
        self._states.probed(service, up)

    def webhook(self, result: str) -> None:
        """A completion webhook was delivered, will be retried, or failed for good."""
        self._webhooks.labels(result).inc()

    def hints(self, count: int) -> None:
        """The relay of this process published hints."""
        self._hints.inc(count)

    # -- the synthetic probe ------------------------------------------------------------------------------------------

    def probe_ended(self, result: str, seconds: float, at: float) -> None:
        """A synthetic tool call ended; `result` is `ok`, `error`, `unreachable` or `timeout`, `at` is the time since 1970."""
        self._probes.labels(result).inc()
        self._probe_seconds.observe(seconds)
        self._probe.last = result == OK, at

    # -- the process --------------------------------------------------------------------------------------------------

    def worker(self, slots: int, busy: Callable[[], int]) -> None:
        """The worker of this process has that many slots; `busy` is asked at each scrape, in the scraping thread."""
        self._slots.set(slots)
        self._busy_slots.set_function(busy)

    def memory(self, bytes_used: int, above: bool) -> None:
        """A worker measured itself and its children."""
        self._memory.set(bytes_used)
        self._above.set(above)

    def loop(self, lag: Callable[[], float]) -> None:
        """The event loop's lag in seconds, asked at each scrape, in the scraping thread."""
        self._loop_lag.set_function(lag)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All series as text, and its content type: OpenMetrics if `accept` asks for it, else Prometheus' plain format."""
        if "application/openmetrics-text" in accept:
            return generate_openmetrics(self.registry), OPENMETRICS  # type: ignore[no-untyped-call]
        return generate_latest(self.registry), _PLAIN


def _family(item: Series, samples: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(item.name, item.meaning, labels=item.labels)
    for labels, value in samples.items():
        family.add_metric(list(labels), value)
    return family


def _offers(offers: frozenset[str]) -> str:
    """A worker's offers as one label; another release may offer what this one does not know."""
    return ("+".join(sorted(offers)) or "none") if offers <= _OFFERS else "other"
