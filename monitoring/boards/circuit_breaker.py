"""Circuit breakers: which dependency is away, seen from which process."""

from __future__ import annotations

from monitoring.boards.queries import NS, now, p95s, quantile, rate, rates
from monitoring.grafana import Dashboard, Query, Row, Unit, graph, stat, states


def board() -> Dashboard:
    """The page."""
    failed = 'code!="ok"'
    words = (("0", "closed", "green"), ("1", "half-open", "orange"), ("2", "open", "red"))
    return Dashboard(
        "shield-circuit-breaker",
        "Shield / Circuit breakers",
        "Which dependency is away, seen from which process, and what that costs.",
        (
            Row(
                "States",
                (
                    stat("Not closed", "Circuits that are open or half-open.", f"sum(circuit_breaker_state{{{NS}}} > bool 0)", bad_above=1),
                    stat(
                        "Misconfigured",
                        "Dependencies that refuse our credential or model.",
                        f"sum(shield_dependency_misconfigured{{{NS}}})",
                        bad_above=1,
                    ),
                    states(
                        "States by service and process kind",
                        "The worst of the processes of a kind. PostgreSQL and Redis have no breaker: their last probe is shown.",
                        now("circuit_breaker_state", "service, job"),
                        "{{service}} from {{job}}",
                        words,
                    ),
                ),
            ),
            Row(
                "Calls",
                (
                    rates("Calls by service", "All calls, refused ones included.", "shield_dependency_calls_total", "service"),
                    rates(
                        "Failures by code",
                        "dependency.circuit_open was refused without a call.",
                        "shield_dependency_calls_total",
                        "service, code",
                        failed,
                    ),
                    graph(
                        "Share of failures",
                        "Of the calls that were made or refused.",
                        Query(
                            f"{rate('shield_dependency_calls_total', 'service', failed)} / ({rate('shield_dependency_calls_total', 'service')} > 0)",
                            "{{service}}",
                        ),
                        unit=Unit.RATIO,
                        bad_above=0.05,
                    ),
                    p95s(
                        "p95 by service",
                        "Time-outs show here before a circuit opens.",
                        "shield_dependency_call_duration_seconds",
                        "service",
                        width=12,
                    ),
                    graph(
                        "p50 by service",
                        "What is usual.",
                        Query(quantile(0.5, "shield_dependency_call_duration_seconds", "service"), "{{service}}"),
                        unit=Unit.SECONDS,
                        width=12,
                    ),
                ),
            ),
        ),
    )
