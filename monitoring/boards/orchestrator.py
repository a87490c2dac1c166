"""The orchestrator: REST, intake, questions, and what they cost."""

from __future__ import annotations

from monitoring.boards.queries import NS, levels, p95s, process_row, quantile, rate, rates
from monitoring.grafana import RATE, Dashboard, Query, Row, Unit, graph


def board() -> Dashboard:
    """The page."""
    api = 'job=~"shield|shield-api"'
    return Dashboard(
        "shield-orchestrator",
        "Shield / Orchestrator",
        "REST, intake, questions, and what they cost.",
        (
            Row(
                "Requests",
                (
                    graph(
                        "Requests by route",
                        "The ten busiest.",
                        Query(f"topk(10, {rate('shield_http_requests_total', 'method, route', api)})", "{{method}} {{route}}"),
                        unit=Unit.PER_SECOND,
                    ),
                    rates(
                        "Requests by status",
                        "503 with Retry-After is a refusal in good order; 500 is a bug.",
                        "shield_http_requests_total",
                        "status",
                        api,
                        stacked=True,
                    ),
                    graph(
                        "p95 by route",
                        "Long polls and event streams last as long as they are meant to.",
                        Query(
                            f"topk(10, {quantile(0.95, 'shield_http_request_duration_seconds', 'method, route', api)})",
                            "{{method}} {{route}}",
                        ),
                        unit=Unit.SECONDS,
                    ),
                ),
            ),
            Row(
                "Jobs taken in and handed out",
                (
                    levels("Jobs", "Pending, processing, and parked until their graph steps are through.", "shield_jobs", "status"),
                    rates(
                        "Hints",
                        "What the relay publishes to workers; one orchestrator at a time does.",
                        "shield_relay_hints_total",
                        "instance",
                    ),
                    graph(
                        "Webhooks",
                        "Deliveries of completion webhooks.",
                        Query(f"sum by (result) (rate(shield_webhook_deliveries_total{{{NS}}}[{RATE}])) or vector(0)", "{{result}}"),
                        unit=Unit.PER_SECOND,
                    ),
                ),
            ),
            Row(
                "Dependencies",
                (
                    rates("Calls by service", "Calls behind a circuit breaker.", "shield_dependency_calls_total", "service", api, width=6),
                    p95s("p95 by service", "How long they take.", "shield_dependency_call_duration_seconds", "service", api, width=6),
                    graph(
                        "Tokens of language models",
                        "By purpose and direction; nothing without a language model.",
                        Query(
                            f"sum by (purpose, direction) (rate(shield_llm_tokens_total{{{NS}}}[{RATE}])) or vector(0)",
                            "{{purpose}} {{direction}}",
                        ),
                        unit=Unit.PER_SECOND,
                        width=6,
                    ),
                    rates(
                        "Tokens of embedding endpoints", "The built-in model counts none.", "shield_embedding_tokens_total", "job", width=6
                    ),
                ),
            ),
            process_row("shield|shield-api"),
        ),
    )
