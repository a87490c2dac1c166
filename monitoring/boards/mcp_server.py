"""The MCP server: what agents ask, what they get, and how long it takes."""

from __future__ import annotations

from monitoring.boards.queries import ANSWERED, BEGUN, EMPTY, NS, counted, p95s, process_row, quantile, rate, rates
from monitoring.grafana import Dashboard, Query, Row, Unit, graph, stat
from monitoring.model import Config


def board(config: Config) -> Dashboard:
    """The page."""
    ours = counted(config)
    return Dashboard(
        "shield-mcp-server",
        "Shield / MCP server",
        "What agents ask, what they get, and how long it takes.",
        (
            Row(
                "At a glance",
                (
                    stat(
                        "Calls",
                        "Answered tool calls a second, polls left out.",
                        f"sum(shield:tool_calls:rate5m{{{NS}}})",
                        unit=Unit.PER_SECOND,
                    ),
                    stat(
                        "Our errors",
                        "Share of the calls of 5 minutes that failed by our fault or a dependency's.",
                        f"max(shield:tool_errors:ratio_rate5m{{{NS}}})",
                        unit=Unit.RATIO,
                        bad_above=0.01,
                    ),
                    stat(
                        "p95",
                        "95 % of the calls of a class take less; 5 s and 1 s are promised.",
                        f"max by (class) (shield:tool_latency_p95:rate5m{{{NS}}})",
                        unit=Unit.SECONDS,
                        bad_above=5,
                        legend="{{class}}",
                        width=8,
                    ),
                    stat("Probe failed", "1 while the synthetic tool call fails.", f"max(shield:probe_failed:bool{{{NS}}})", bad_above=1),
                    stat(
                        "Nothing found",
                        "Share of the searches and questions that found nothing.",
                        f"{rate('shield_tool_answers_total', '', EMPTY)} / ({rate('shield_tool_answers_total', '')} > 0)",
                        unit=Unit.RATIO,
                    ),
                ),
            ),
            Row(
                "Calls",
                (
                    rates("Calls by tool", "Answered calls, polls included.", "tool_calls_total", "tool_name", ANSWERED, stacked=True),
                    rates(
                        "Failures by fault",
                        "A caller's mistakes are none of ours; dependency and server count against the objective.",
                        "shield_tool_errors_total",
                        "fault",
                        ours,
                        stacked=True,
                    ),
                    graph(
                        "Failures by code",
                        "What docs/errors says about them.",
                        Query(f"topk(10, {rate('shield_tool_errors_total', 'tool_name, code', ours)} > 0)", "{{tool_name}} {{code}}"),
                        unit=Unit.PER_SECOND,
                    ),
                    graph(
                        "Given up by the caller",
                        "Calls that began and were never answered, as the client went away (a call in flight shows for a moment).",
                        Query(
                            f"{rate('tool_calls_total', 'tool_name', BEGUN)} - {rate('tool_calls_total', 'tool_name', ANSWERED)}",
                            "{{tool_name}}",
                        ),
                        unit=Unit.PER_SECOND,
                    ),
                    graph(
                        "Stable and canary",
                        "Calls by colour.",
                        Query(f"sum by (track) (shield_track:tool_calls:rate1m{{{NS}}})", "{{track}}"),
                        unit=Unit.PER_SECOND,
                    ),
                    graph(
                        "Errors of stable and canary",
                        "What a canary is judged by: our errors as a share of its calls.",
                        Query(f"max by (track) (shield_track:tool_errors:ratio_rate1m{{{NS}}})", "{{track}}"),
                        unit=Unit.RATIO,
                        bad_above=0.01,
                    ),
                ),
            ),
            Row(
                "Latency",
                (
                    *(
                        graph(
                            f"{name} tools",
                            says,
                            *(
                                Query(quantile(q, "tool_duration_seconds", "", f'tool_name=~"{"|".join(tools)}"'), f"p{q * 100:g}")
                                for q in (0.5, 0.95, 0.99)
                            ),
                            unit=Unit.SECONDS,
                            bad_above=limit,
                        )
                        for name, tools, limit, says in (
                            ("Query", config.tools.query, 5, "Tools that answer with what is known; p95 below 5 s is promised."),
                            ("Accepting", config.tools.accept, 1, "Tools that accept work; p95 below 1 s is promised."),
                        )
                    ),
                    p95s("p95 by tool", "Polls may wait up to 45 s on purpose.", "tool_duration_seconds", "tool_name"),
                    rates(
                        "HTTP by status",
                        "Requests of the port, MCP's among them: a failed tool call is a 200.",
                        "shield_http_requests_total",
                        "status",
                        'job=~"shield|shield-mcp"',
                        stacked=True,
                    ),
                    p95s("Synthetic calls", "How long the probe's calls take, connecting included.", "shield_probe_duration_seconds"),
                    graph(
                        "Synthetic calls by result",
                        "ok, error (the tool failed), unreachable or timeout.",
                        Query(f"sum by (result) (increase(shield_probes_total{{{NS}}}[5m]))", "{{result}}"),
                        stacked=True,
                    ),
                ),
            ),
            process_row("shield|shield-mcp"),
        ),
    )
