"""The fixed names and labels, bounded whatever is called, and a scrape that always tells the present."""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shield.errors import CircuitOpen, ConfigInvalid, DependencyUnavailable, InvalidRequest
from shield.resilience import Breakers
from shield.settings import BreakerSettings
from shield.telemetry.metrics import Metrics, QueueGauges
from shield.telemetry.series import LABELS, SERIES, Role
from shield.telemetry.server import MetricsServer


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render()[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


def get(url: str, **headers: str) -> tuple[int, str, str]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:  # noqa: S310
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def test_declared_tools_start_at_zero() -> None:
    metrics = Metrics()
    metrics.declare_tools(["qdrant_find"])
    for status in ("started", "success", "error"):
        assert value(metrics, "tool_calls_total", tool_name="qdrant_find", status=status) == 0
    assert value(metrics, "tool_duration_seconds_count", tool_name="qdrant_find") == 0


def test_failures_of_ours_start_at_zero_so_that_the_first_one_is_an_increase() -> None:
    metrics = Metrics()
    metrics.declare_tools(["qdrant_find"], ["qdrant_find"])
    begun = {dict(labels)["code"]: dict(labels)["fault"] for name, labels in samples(metrics) if name == "shield_tool_errors_total"}
    assert begun["dependency.unavailable"] == "dependency"
    assert begun["request.internal"] == "server"
    assert "caller" not in begun.values()
    assert not {code for code in begun if code.startswith(("page.", "document.", "backup."))}
    assert len(begun) < 20
    for found in ("true", "false"):
        assert value(metrics, "shield_tool_answers_total", tool_name="qdrant_find", found=found) == 0
    for kind in ("crawl", "ingest"):
        assert value(metrics, "shield_jobs_failed_total", kind=kind, code="job.retries_exhausted", fault="server") == 0


def test_an_answer_is_counted_by_whether_something_was_found() -> None:
    metrics = Metrics()
    metrics.declare_tools(["qdrant_find"], ["qdrant_find"])
    for found in (True, False, False):
        metrics.tool_answered("qdrant_find", found)
    metrics.tool_answered("made up", found=True)
    counted = [value(metrics, "shield_tool_answers_total", tool_name="qdrant_find", found=found) for found in ("true", "false")]
    assert counted == [1, 2]
    assert value(metrics, "shield_tool_answers_total", tool_name="unknown", found="true") == 1


def test_a_call_is_counted_with_its_duration_and_whose_fault_a_failure_is() -> None:
    metrics = Metrics()
    metrics.declare_tools(["qdrant_find"])
    for error in (None, InvalidRequest(), DependencyUnavailable()):
        metrics.tool_started("qdrant_find")
        metrics.tool_ended("qdrant_find", 0.02, error)
    assert value(metrics, "tool_calls_total", tool_name="qdrant_find", status="started") == 3
    assert value(metrics, "tool_calls_total", tool_name="qdrant_find", status="success") == 1
    assert value(metrics, "tool_calls_total", tool_name="qdrant_find", status="error") == 2
    assert value(metrics, "tool_duration_seconds_bucket", tool_name="qdrant_find", le="0.025") == 3
    assert value(metrics, "shield_tool_errors_total", tool_name="qdrant_find", code="request.invalid", fault="caller") == 1
    assert value(metrics, "shield_tool_errors_total", tool_name="qdrant_find", code="dependency.unavailable", fault="dependency") == 1


def test_labels_stay_bounded_whatever_callers_send() -> None:
    metrics = Metrics()
    metrics.declare_tools(["qdrant_find"])
    before = len(samples(metrics))
    for n in range(500):
        metrics.tool_started(f"made-up-{n}")
        metrics.tool_ended(f"made-up-{n}", 0.1, InvalidRequest())
        metrics.http_request("/jobs/{id}", f"METHOD{n}", 405, 0.1)
    assert value(metrics, "tool_calls_total", tool_name="unknown", status="error") == 500
    assert value(metrics, "shield_http_requests_total", route="/jobs/{id}", method="OTHER", status="405") == 500
    assert len(samples(metrics)) - before < 30


def test_jobs_and_what_becomes_of_them_have_their_numbers() -> None:
    metrics = Metrics(version="1.2.3")
    metrics.job_finished("crawl", "completed", 4.0, "partial")
    metrics.job_finished("crawl", "failed", 4.0, code="job.retries_exhausted")
    metrics.stage("index", 3.0)
    metrics.lease_expired()
    metrics.crawl_page(None)
    metrics.crawl_page("page.too_large")
    metrics.crawl_page("of another release")
    metrics.graph_step("add", "done")
    metrics.document("stored", 7)
    assert value(metrics, "shield_jobs_finished_total", kind="crawl", status="completed") == 1
    assert value(metrics, "shield_job_duration_seconds_count", kind="crawl", outcome="partial") == 1
    assert value(metrics, "shield_job_duration_seconds_count", kind="crawl", outcome="failed") == 1
    metrics.job_finished("ingest", "failed", 4.0, code="of another release")
    assert value(metrics, "shield_jobs_failed_total", kind="crawl", code="job.retries_exhausted", fault="server") == 1
    assert value(metrics, "shield_jobs_failed_total", kind="ingest", code="unknown", fault="server") == 1
    assert value(metrics, "shield_stage_duration_seconds_sum", stage="index") == 3
    assert value(metrics, "shield_lease_expiries_total") == 1
    assert value(metrics, "shield_crawl_pages_total", code="ok") == 1
    assert value(metrics, "shield_crawl_pages_total", code="page.too_large") == 1
    assert value(metrics, "shield_crawl_pages_total", code="unknown") == 1
    assert value(metrics, "shield_graph_steps_total", operation="add", result="done") == 1
    assert value(metrics, "shield_documents_total", status="stored") == 7
    assert value(metrics, "shield_build_info", version="1.2.3") == 1


SEEN = QueueGauges(
    jobs={"pending": 3, "processing": 1, "parked": 0},
    oldest={"high": 0.0, "normal": 12.5, "low": 0.0},
    unpublished=7.5,
    graph_waiting=2,
    graph_oldest=3.5,
    workers={frozenset({"browser"}): 2, frozenset({"quantum"}): 1},
    slots=12,
)


def test_the_queue_is_shown_as_it_was_at_one_moment_and_not_at_all_while_the_database_is_away() -> None:
    metrics = Metrics(role=Role.API)
    assert value(metrics, "shield_jobs", status="pending") is None
    metrics.queue(SEEN)
    assert value(metrics, "shield_jobs", status="pending") == 3
    assert value(metrics, "shield_queue_oldest_seconds", priority="normal") == 12.5
    assert value(metrics, "shield_queue_unpublished_seconds") == 7.5
    assert (value(metrics, "shield_graph_waiting"), value(metrics, "shield_graph_oldest_seconds")) == (2, 3.5)
    workers = {offers: value(metrics, "shield_fleet_workers", offers=offers) for offers in ("browser", "other", "none")}
    assert workers == {"browser": 2, "other": 1, "none": 0}
    assert value(metrics, "shield_fleet_slots") == 12
    metrics.queue(None)
    assert value(metrics, "shield_jobs", status="pending") is None
    assert value(metrics, "shield_fleet_slots") is None


@pytest.mark.parametrize("role", Role)
def test_a_process_shows_the_series_of_its_role_and_no_others(role: Role) -> None:
    metrics = Metrics(Breakers(BreakerSettings()), role=role)
    metrics.queue(SEEN)
    shown = {family.name + ("_total" if family.type == "counter" else ""): family for family in metrics.registry.collect()}
    ours = {name: family for name, family in shown.items() if not name.startswith("process_")}
    assert set(ours) == {item.name for item in SERIES if role in item.where}
    for item in SERIES:
        if role in item.where:
            assert (ours[item.name].type, ours[item.name].documentation) == (item.kind, item.meaning)


def test_every_label_says_how_it_is_bounded() -> None:
    assert {label for item in SERIES for label in item.labels} == set(LABELS)


def test_slots_and_the_loops_lag_are_read_when_they_are_scraped() -> None:
    metrics, busy = Metrics(role=Role.WORKER), ["a job"]
    metrics.worker(4, lambda: len(busy))
    metrics.loop(lambda: 0.25)
    assert (value(metrics, "shield_worker_slots"), value(metrics, "shield_worker_busy_slots")) == (4, 1)
    busy.clear()
    assert value(metrics, "shield_worker_busy_slots") == 0
    assert value(metrics, "shield_event_loop_lag_seconds") == 0.25


async def test_calls_behind_a_breaker_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    breakers = Breakers(BreakerSettings(threshold=1), observed=metrics.dependency_call)

    async def answers() -> None:
        """All is well."""

    async def fails() -> None:
        raise DependencyUnavailable

    await breakers.call("llm", answers)
    for error in (DependencyUnavailable, CircuitOpen, CircuitOpen):
        with pytest.raises(error):
            await breakers.call("llm", fails)
    counted = {
        code: value(metrics, "shield_dependency_calls_total", service="llm", code=code) for code in ("ok", DependencyUnavailable.code)
    }
    assert counted == {"ok": 1, DependencyUnavailable.code: 1}
    assert value(metrics, "shield_dependency_calls_total", service="llm", code=CircuitOpen.code) == 2
    assert value(metrics, "shield_dependency_call_duration_seconds_count", service="llm") == 2


async def test_a_cancelled_call_is_not_counted() -> None:
    metrics = Metrics()
    breakers = Breakers(BreakerSettings(), observed=metrics.dependency_call)
    call = asyncio.create_task(breakers.call("llm", asyncio.Event().wait))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert value(metrics, "shield_dependency_call_duration_seconds_count", service="llm") is None


async def test_the_state_of_circuits_is_read_when_it_is_scraped() -> None:
    now = 0.0
    breakers = Breakers(BreakerSettings(threshold=1), lambda: now)
    metrics = Metrics(breakers)

    async def fails() -> None:
        raise DependencyUnavailable

    for service in ("orchestrator", "qdrant", "embedding", "llm"):
        assert value(metrics, "circuit_breaker_state", service=service) == 0
    with pytest.raises(DependencyUnavailable):
        await breakers.call("llm", fails)
    assert value(metrics, "circuit_breaker_state", service="llm") == 2
    now = 61
    assert value(metrics, "circuit_breaker_state", service="llm") == 1


def test_postgres_and_redis_show_their_last_probe() -> None:
    metrics = Metrics()
    assert value(metrics, "circuit_breaker_state", service="postgres") is None
    metrics.probed("postgres", up=False)
    assert value(metrics, "circuit_breaker_state", service="postgres") == 2
    metrics.probed("postgres", up=True)
    metrics.probed("redis", up=True)
    assert value(metrics, "circuit_breaker_state", service="postgres") == 0
    assert value(metrics, "circuit_breaker_state", service="redis") == 0


def test_two_metrics_of_one_process_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.document("stored")
    assert value(other, "shield_documents_total", status="stored") is None


class TestServer:
    def test_it_serves_both_text_formats_on_a_free_port(self) -> None:
        metrics = Metrics()
        metrics.document("stored")
        with MetricsServer(metrics, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.port}/metrics"
            status, content_type, body = get(url)
            assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
            assert 'shield_documents_total{status="stored"} 1.0' in body
            _, content_type, body = get(url, Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
            assert content_type.startswith("application/openmetrics-text")
            assert body.endswith("# EOF\n")

    def test_there_is_nothing_at_other_paths(self) -> None:
        with MetricsServer(Metrics(), "127.0.0.1", 0) as server, pytest.raises(urllib.error.HTTPError, match="404") as refused:
            get(f"http://127.0.0.1:{server.port}/")
        refused.value.close()

    def test_a_silent_client_holds_up_neither_others_nor_the_end(self) -> None:
        server = MetricsServer(Metrics(), "127.0.0.1", 0)
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as silent:
            silent.sendall(b"GET /met")
            assert get(f"http://127.0.0.1:{server.port}/metrics")[0] == 200
            start = time.monotonic()
            server.close()
            server.close()
            assert time.monotonic() - start < 2
        with pytest.raises(OSError):  # noqa: PT011  refused or reset, by platform
            socket.create_connection(("127.0.0.1", server.port), timeout=1)

    def test_a_taken_port_is_named_with_what_to_do(self) -> None:
        with (
            MetricsServer(Metrics(), "127.0.0.1", 0) as server,
            pytest.raises(ConfigInvalid, match=f"{server.port}.*SHIELD_METRICS_PORT"),
        ):
            MetricsServer(Metrics(), "127.0.0.1", server.port)
