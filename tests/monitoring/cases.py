"""Cases of alerts, as `alerts/*.yml` tell them, and `promtool test rules` as the judge.

A case gives series and says at which minutes its alert is quiet, fires, and has recovered. It is judged on the rules as they are deployed: those
for a plain Prometheus, and those that the chart renders; from the other rules only what the alert builds on is evaluated with it, so that a case of
days takes a second. Each case is a test group of promtool, which looks at the series `ALERTS` that Prometheus itself writes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from monitoring.model import seconds

HERE = Path(__file__).parent / "alerts"
NAMESPACE = "prod"
_LIMIT = 240.0  # seconds for one run of promtool
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_:]*")


class Case(BaseModel):
    """One story of an alert."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = ""
    series: dict[str, str]
    severity: str
    window: str = ""
    interval: str = "1m"
    quiet: tuple[str, ...] = ()
    fires: tuple[str, ...] = ()
    recovers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _looked_at_when_rules_are(self) -> Self:
        """Between two evaluations nothing fires, as the last one is stale by then."""
        if odd := [at for at in (*self.quiet, *self.fires, *self.recovers) if seconds(at) % seconds(self.interval)]:
            raise ValueError(f"{', '.join(odd)}: no multiple of {self.interval}")
        return self


class Nobody(BaseModel):
    """A story that wakes nobody."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    series: dict[str, str]
    at: tuple[str, ...]
    all: bool = False
    """No alert at all may fire, whatever its severity."""


class Group(BaseModel):
    """A group of rules, as far as it matters here."""

    name: str
    rules: list[dict[str, Any]]

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return {"name": value["name"], "rules": value["rules"]} if isinstance(value, dict) else value


def cases() -> dict[str, list[Case]]:
    """All cases by alert."""
    found: dict[str, list[Case]] = {}
    for path in sorted(HERE.glob("*.yml")):
        told = _read(path)
        if isinstance(told, dict):
            for alert, stories in told.items():
                found.setdefault(alert, []).extend(Case.model_validate(story) for story in stories)
    return found


def nobody() -> list[Nobody]:
    """The stories that wake nobody."""
    return [Nobody.model_validate(story) for story in _read(HERE / "nobody.yml")]


def _read(path: Path) -> Any:
    """YAML in which everything is text: `0x60` is sixty zeros here, not ninety-six."""
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506  it makes nothing but text


def groups_of(text: str) -> list[Group]:
    """The groups of a file of rules, for the namespace of the cases."""
    return [Group.model_validate(group) for group in yaml.safe_load(text.replace("__NAMESPACE__", NAMESPACE))["groups"]]


def alerts_in(groups: Iterable[Group]) -> dict[str, list[dict[str, Any]]]:
    """The alerting rules by name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        for rule in group.rules:
            if "alert" in rule:
                found.setdefault(rule["alert"], []).append(rule)
    return found


def needed(groups: Iterable[Group], alert: str) -> list[Group]:
    """The alert's rules and what they build on; all other alerts and objectives left out."""
    slos = {rule["labels"]["slo"] for rule in alerts_in(groups).get(alert, []) if "slo" in rule["labels"]}

    def wanted(rule: Mapping[str, Any]) -> bool:
        if "alert" in rule:
            return bool(rule["alert"] == alert)
        slo = rule.get("labels", {}).get("sloth_slo")
        return slo is None or slo in slos

    kept = [Group(name=group.name, rules=[rule for rule in group.rules if wanted(rule)]) for group in groups]
    return [group for group in kept if group.rules]


def concerned(groups: Iterable[Group], series: Iterable[str]) -> list[Group]:
    """The rules that can say anything about these series, records that build on records included."""
    names = {name.partition("{")[0] for name in series}
    kept = []
    for group in groups:
        rules = []
        for rule in group.rules:
            if names & set(_NAME.findall(rule["expr"])) or rule["expr"].startswith("vector("):
                rules.append(rule)
                names.add(rule.get("record", ""))
        if rules:
            kept.append(Group(name=group.name, rules=rules))
    return kept


def judge(promtool: Path, directory: Path, groups: list[Group], case: Case, alert: str) -> str:
    """What promtool has against a case; nothing if it passes."""
    firing = f'ALERTS{{alertname="{alert}",alertstate="firing"' + (f',long_window="{case.window}"' if case.window else "") + "}"
    label = f'{{severity="{case.severity}"}}'
    expected = [*((at, []) for at in (*case.quiet, *case.recovers)), *((at, [{"labels": label, "value": 1}]) for at in case.fires)]
    looks = [{"expr": f"min by (severity) ({firing})", "eval_time": at, "exp_samples": samples} for at, samples in expected]
    return _run(promtool, directory, needed(groups, alert), case.series, case.interval, looks)


def judge_nobody(promtool: Path, directory: Path, groups: list[Group], story: Nobody) -> str:
    """The same for a story that wakes nobody."""
    severity = "" if story.all else ',severity="critical"'
    expr = f'count by (alertname) (ALERTS{{alertstate="firing"{severity}}})'
    running = concerned([group for group in groups if group.name not in {"shield-operator", "shield-probe"}], story.series)
    looks: list[dict[str, Any]] = [{"expr": expr, "eval_time": at, "exp_samples": []} for at in story.at]
    return _run(promtool, directory, running, story.series, "1m", looks)


def check(promtool: Path, path: Path) -> str:
    """What `promtool check rules` has against a file; nothing if it passes."""
    done = subprocess.run([str(promtool), "check", "rules", str(path)], capture_output=True, text=True, timeout=_LIMIT, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _run(
    promtool: Path, directory: Path, groups: list[Group], series: Mapping[str, str], interval: str, looks: list[dict[str, Any]]
) -> str:
    (directory / "rules.yml").write_text(yaml.safe_dump({"groups": [group.model_dump() for group in groups]}), encoding="utf-8")
    story = {
        "interval": interval,
        "input_series": [{"series": _with_namespace(name), "values": values} for name, values in series.items()],
        "promql_expr_test": looks,
    }
    order = [group.name for group in groups]  # else any; with long intervals what one group records is stale for the group before it
    test = {"rule_files": ["rules.yml"], "evaluation_interval": interval, "group_eval_order": order, "tests": [story]}
    (directory / "test.yml").write_text(yaml.safe_dump(test), encoding="utf-8")
    command = [str(promtool), "test", "rules", "test.yml"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=_LIMIT, check=False)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip()


def _with_namespace(series: str) -> str:
    name, brace, labels = series.partition("{")
    rest = labels if brace else "}"
    return re.sub(r",}$", "}", f'{name}{{namespace="{NAMESPACE}",{rest}')
