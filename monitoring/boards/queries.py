"""Queries that all dashboards are made of; each is of the namespaces that the reader chose."""

from __future__ import annotations

from monitoring.grafana import RATE, Panel, Query, Row, Unit, graph, stat
from monitoring.model import Config

NS = 'namespace=~"$namespace"'
BEGUN = 'status="started"'
ANSWERED = 'status=~"success|error"'
EMPTY = 'found="false"'


def rate(metric: str, by: str, matchers: str = "") -> str:
    """How often a second, by labels."""
    return f"sum by ({by}) (rate({metric}{{{', '.join(filter(None, (NS, matchers)))}}}[{RATE}]))"


def quantile(q: float, metric: str, by: str = "", matchers: str = "") -> str:
    """A quantile of a histogram, by labels."""
    labels = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', labels, matchers)})"


def now(metric: str, by: str = "", matchers: str = "", how: str = "max") -> str:
    """A gauge as it is, by labels."""
    return f"{how} by ({by}) ({metric}{{{', '.join(filter(None, (NS, matchers)))}}})"


def rates(title: str, says: str, metric: str, by: str, matchers: str = "", *, width: int = 8, stacked: bool = False) -> Panel:
    """How often a second, a line for each value of the labels."""
    return graph(title, says, Query(rate(metric, by, matchers), _legend(by)), unit=Unit.PER_SECOND, width=width, stacked=stacked)


def p95s(title: str, says: str, metric: str, by: str = "", matchers: str = "", *, width: int = 8, bad_above: float | None = None) -> Panel:
    """What 95 % of the durations stay below, a line for each value of the labels."""
    query = Query(quantile(0.95, metric, by, matchers), _legend(by) if by else "p95")
    return graph(title, says, query, unit=Unit.SECONDS, width=width, bad_above=bad_above)


def levels(
    title: str,
    says: str,
    metric: str,
    by: str,
    matchers: str = "",
    *,
    unit: Unit = Unit.COUNT,
    width: int = 8,
    bad_above: float | None = None,
    stacked: bool = False,
) -> Panel:
    """A gauge over time, a line for each value of the labels."""
    return graph(title, says, Query(now(metric, by, matchers), _legend(by)), unit=unit, width=width, bad_above=bad_above, stacked=stacked)


def _legend(by: str) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in by.split(", "))


def counted(config: Config) -> str:
    """A matcher of the tools whose calls count."""
    return f'tool_name!~"{"|".join(config.tools.not_counted)}"'


def process_row(job: str) -> Row:
    """What every process tells of itself."""
    matchers = f'job=~"{job}"'
    return Row(
        "Processes",
        (
            stat("Up", "Processes that answered the last scrape.", f"sum by (job) (up{{{NS}, {matchers}}})", legend="{{job}}"),
            stat(
                "Version",
                "What runs; two during a release.",
                f"count by (version) (shield_build_info{{{NS}, {matchers}}})",
                legend="{{version}}",
            ),
            levels(
                "Memory",
                "Resident memory of each process.",
                "process_resident_memory_bytes",
                "job, instance",
                matchers,
                unit=Unit.BYTES,
                width=5,
            ),
            graph(
                "CPU",
                "Cores that each process uses.",
                Query(rate("process_cpu_seconds_total", "job, instance", matchers), "{{job}} {{instance}}"),
                width=5,
            ),
            levels(
                "Event loop lag",
                "How far behind the event loop is; a second is too much for an answer in time.",
                "shield_event_loop_lag_seconds",
                "job, instance",
                matchers,
                unit=Unit.SECONDS,
                width=6,
                bad_above=1,
            ),
        ),
    )
