"""The objectives: whether promises are kept, and what is left of each budget."""

from __future__ import annotations

from monitoring.boards.queries import NS
from monitoring.grafana import Dashboard, Query, Row, Unit, graph, stat, table
from monitoring.model import Config


def board(config: Config) -> Dashboard:
    """The page."""
    windows = ("5m", "1h", "6h", "1d", "3d", "30d")
    return Dashboard(
        "shield-slo-overview",
        "Shield / Objectives",
        "Whether promises are kept, and what is left of each budget.",
        (
            Row(
                "Now",
                (
                    stat(
                        "Budget left",
                        "Of 30 days; below 0 the objective is missed.",
                        f"min by (sloth_slo) (slo:period_error_budget_remaining:ratio{{{NS}}})",
                        unit=Unit.RATIO,
                        legend="{{sloth_slo}}",
                        width=12,
                    ),
                    stat(
                        "Burn rate",
                        "1 uses up the budget in exactly 30 days; 14.4 in two days.",
                        f"max by (sloth_slo) (slo:current_burn_rate:ratio{{{NS}}})",
                        bad_above=1,
                        legend="{{sloth_slo}}",
                        width=12,
                    ),
                    table(
                        "Alerts that fire",
                        "Each has a page in docs/runbooks.",
                        Query(f'sum by (alertname, severity) (ALERTS{{{NS}, alertname=~"Shield.*", alertstate="firing"}}) or vector(0)'),
                    ),
                ),
            ),
            *(
                Row(
                    f"{slo.name}: {slo.description}",
                    (
                        stat(
                            "Objective",
                            f"{slo.objective:g} %.",
                            f'max(slo:objective:ratio{{sloth_slo="{slo.name}"}})',
                            unit=Unit.RATIO,
                            width=3,
                        ),
                        stat(
                            "Budget left",
                            "Of 30 days.",
                            f'min(slo:period_error_budget_remaining:ratio{{{NS}, sloth_slo="{slo.name}"}})',
                            unit=Unit.RATIO,
                            width=3,
                        ),
                        graph(
                            "Bad share by window",
                            "An alert needs a long and a short window above its threshold.",
                            *(
                                Query(f'max(slo:sli_error:ratio_rate{window}{{{NS}, sloth_slo="{slo.name}"}})', window)
                                for window in windows
                            ),
                            unit=Unit.RATIO,
                            width=10,
                        ),
                        graph(
                            "Burn rate",
                            "6 and 14.4 page.",
                            Query(f'max(slo:current_burn_rate:ratio{{{NS}, sloth_slo="{slo.name}"}})', "5m"),
                            Query(f'max(slo:period_burn_rate:ratio{{{NS}, sloth_slo="{slo.name}"}})', "30d"),
                            width=8,
                            bad_above=6,
                        ),
                    ),
                )
                for slo in config.slos
            ),
        ),
    )
