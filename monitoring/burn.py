"""Objectives as rules: how bad each window was, how fast the budget burns, and the alerts on it.

The names and labels of the records are Sloth's, so its dashboards show them. An error ratio is 0 where there is traffic and no error, and absent
where there is no traffic: NaN would spoil every average over it. The ratio of the whole period is the quotient of two sums over
5-minute rates (a quiet night weighs what its few calls weigh), and for slices of time the average itself.

An alert needs both of its windows above the threshold, and a number of bad events in the long one, so that a few failing calls in a quiet hour
wake nobody.
"""

from __future__ import annotations

from monitoring.model import Config, Duration, Severity, Slo, Window, seconds
from monitoring.render import Document, Words

BASE = "5m"
"""The shortest window: the rate that the whole period is summed up from."""
PACE = {Severity.CRITICAL: "quickly", Severity.WARNING: "steadily"}


def records(config: Config, slo: Slo, words: Words) -> list[Document]:
    """The recording rules of an objective."""
    windows = sorted({window for pair in config.windows for window in (pair.long, pair.short)} | {BASE}, key=seconds)
    labels = _labels(config, slo)
    made: list[Document] = []

    def record(name: str, expr: str, **more: str) -> None:
        made.append({"record": name, "expr": expr, "labels": {**labels, **more}})

    if not slo.sli.slice:
        record(f"slo:sli_total:rate{BASE}", _total(slo, BASE, words))
        record(f"slo:sli_bad:rate{BASE}", _zero_filled(slo, BASE, words))
    for window in windows:
        record(f"slo:sli_error:ratio_rate{window}", _ratio(slo, window, words), sloth_window=window)
    record(f"slo:sli_error:ratio_rate{config.period}", _period(config, slo, words), sloth_window=config.period)
    record("slo:objective:ratio", f"vector({round(1 - slo.budget, 10)})", **words.namespace_label)
    record("slo:error_budget:ratio", f"vector({slo.budget})", **words.namespace_label)
    record("slo:time_period:days", f"vector({seconds(config.period) // 86400})", **words.namespace_label)
    record("slo:current_burn_rate:ratio", f"{_own(f'slo:sli_error:ratio_rate{BASE}', slo, words)} / {slo.budget}")
    record("slo:period_burn_rate:ratio", f"{_own(f'slo:sli_error:ratio_rate{config.period}', slo, words)} / {slo.budget}")
    record("slo:period_error_budget_remaining:ratio", f"1 - {_own('slo:period_burn_rate:ratio', slo, words)}")
    record("sloth_slo_info", "vector(1)", sloth_objective=f"{slo.objective:g}", sloth_spec="shield", **words.namespace_label)
    return made


def alerts(config: Config, slo: Slo, words: Words) -> list[Document]:
    """The alerting rules of an objective: one for each pair of windows."""
    return [_alert(slo, pair, words) for pair in config.windows]


def _alert(slo: Slo, pair: Window, words: Words) -> Document:
    threshold = f"{pair.factor:g} * {slo.budget}"
    expr = (
        f"{_own(f'slo:sli_error:ratio_rate{pair.long}', slo, words)} > {threshold}\n"
        f"and on (namespace) {_own(f'slo:sli_error:ratio_rate{pair.short}', slo, words)} > {threshold}"
    )
    if pair.long in slo.minimum_bad:
        bad = f"avg_over_time({_slice(slo, words)}[{pair.long}])" if slo.sli.slice else f"({_bad(slo, pair.long, words)})"
        expr += f"\nand on (namespace) {bad} * {seconds(pair.long)} > {slo.minimum_bad[pair.long]:g}"
    severity = pair.severity if slo.pages else Severity.WARNING
    return {
        "alert": slo.alert,
        "expr": expr,
        "for": pair.for_,
        "labels": {"severity": str(severity), "slo": slo.name, "long_window": pair.long, "short_window": pair.short},
        "annotations": {
            "summary": f"The error budget of {slo.name} burns {PACE[pair.severity]}.",
            "description": (
                f"{slo.description} The objective is {slo.objective:g} %; {{{{ $value | humanizePercentage }}}} of the last {pair.long} was bad, "
                f"which is more than {pair.factor:g} times what the budget allows."
            ),
            "runbook_url": words.runbook(slo.alert),
        },
    }


def _labels(config: Config, slo: Slo) -> dict[str, str]:
    return {"sloth_id": f"{config.service}-{slo.name}", "sloth_service": config.service, "sloth_slo": slo.name}


def _own(record: str, slo: Slo, words: Words) -> str:
    """A record of this objective, whose labels besides the namespace are of no interest."""
    return words.fill(f'{record}{{$ns sloth_slo="{slo.name}"}}')


def _slice(slo: Slo, words: Words) -> str:
    return words.fill(f"{slo.sli.slice}{{$ns}}")


def _bad(slo: Slo, window: Duration, words: Words) -> str:
    return words.fill(slo.sli.bad, window=window)


def _total(slo: Slo, window: Duration, words: Words) -> str:
    return words.fill(slo.sli.total, window=window)


def _zero_filled(slo: Slo, window: Duration, words: Words) -> str:
    """Bad events a second: 0, not nothing, where there is traffic and none of it is bad."""
    return f"({_bad(slo, window, words)})\nor 0 * ({_total(slo, window, words)})"


def _ratio(slo: Slo, window: Duration, words: Words) -> str:
    if slo.sli.slice:
        return f"avg_over_time({_slice(slo, words)}[{window}])"
    return f"(\n{_zero_filled(slo, window, words)}\n)\n/ ({_total(slo, window, words)} > 0)"


def _period(config: Config, slo: Slo, words: Words) -> str:
    if slo.sli.slice:
        return f"avg_over_time({_slice(slo, words)}[{config.period}])"
    bad, total = (
        f"sum by (namespace) (sum_over_time({_own(f'slo:sli_{part}:rate{BASE}', slo, words)}[{config.period}]))"
        for part in ("bad", "total")
    )
    return f"{bad}\n/ ({total} > 0)"
