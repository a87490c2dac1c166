"""The rules hold what they promise, as far as text can tell: drift, selectors, series that exist, and nothing that nobody explains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from monitoring.generate import HERE, alert_groups, generate, recording_groups
from monitoring.model import Config, Sli, Slo, load, seconds
from monitoring.render import NAMESPACE, RUNBOOKS, Words
from shield.telemetry.series import CALL_BUCKETS, JOB_BUCKETS, SERIES
from shield_operator.metrics import Metrics
from tests.monitoring.cases import alerts_in, cases, groups_of, nobody

ROOT = HERE.parent
PROMETHEUS = {
    "up": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity"},
    "process_resident_memory_bytes": set[str](),
    "process_cpu_seconds_total": set[str](),
}
TARGET = {"namespace", "job", "instance", "track"}
SELECTOR = re.compile(r"([a-zA-Z_][a-zA-Z0-9_:]*)\{([^}]*)\}")
MATCHER = re.compile(r"\s*([a-zA-Z_]+)\s*(?:=~|!~|!=|=)")


def exported() -> dict[str, set[str]]:
    """Every series that a process of ours shows, by its name at the scrape, with its labels."""
    found: dict[str, set[str]] = {}

    def add(name: str, kind: str, labels: set[str]) -> None:
        if kind == "histogram":
            found[f"{name}_bucket"] = labels | {"le"}
            found[f"{name}_count"] = found[f"{name}_sum"] = labels
        else:
            found[name] = labels

    for item in SERIES:
        add(item.name, item.kind, set(item.labels))
    for collector in vars(Metrics()).values():
        if family := next(iter(getattr(collector, "describe", list)()), None):
            add(family.name + ("_total" if family.type == "counter" else ""), family.type, set(collector._labelnames))
    return found | PROMETHEUS


def recorded(rules: list[dict[str, Any]]) -> set[str]:
    return {rule["record"] for rule in rules if "record" in rule}


def chart() -> list[dict[str, Any]]:
    files = ("generated/recording_rules.yaml", "generated/alerts.yaml")
    return [
        rule for name in files for group in yaml.safe_load((HERE / name).read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
    ]


def queries(dashboard: Path) -> Iterator[str]:
    for panel in json.loads(dashboard.read_text(encoding="utf-8"))["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


CHART = chart()
KNOWN = exported() | {record: TARGET | {"class", "sloth_slo"} for record in recorded(CHART)}
ALERTS = [rule for rule in CHART if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})
RUNBOOK_DIRECTORY = ROOT / "docs/runbooks"
DASHBOARDS = sorted((HERE / "dashboards").glob("*.json"))


def wrong(expr: str) -> list[str]:
    """Series that nobody shows, and labels that they do not have."""
    found = SELECTOR.findall(expr)
    unknown = [name for name, _ in found if name not in KNOWN]
    labels = [(name, label) for name, inner in found if name in KNOWN for label in set(MATCHER.findall(inner)) - KNOWN[name] - TARGET]
    return [*unknown, *(f"{name} has no label {label}" for name, label in labels)]


def test_the_generated_files_are_those_that_the_configuration_makes() -> None:
    for path, text in generate().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run make generate"
    assert {path.name for path in DASHBOARDS} == {path.name for path in generate() if path.suffix == ".json"}


def test_what_the_chart_gets_asks_for_one_namespace_in_every_selector() -> None:
    for rule in CHART:
        for name, inner in SELECTOR.findall(rule["expr"]):
            assert f'namespace="{NAMESPACE}"' in inner, (name, rule["expr"])
        assert "$" not in rule["expr"]


def test_what_a_plain_prometheus_gets_has_no_token_of_the_chart() -> None:
    text = (HERE / "prometheus_alerts.yml").read_text(encoding="utf-8")
    assert NAMESPACE not in text
    assert RUNBOOKS not in text
    assert set(alerts_in(groups_of(text))) == set(NAMES)
    default = yaml.safe_load((ROOT / "charts/shield/values.yaml").read_text(encoding="utf-8"))["monitoring"]["rules"]["runbooksUrl"]
    for name, rules in alerts_in(groups_of(text)).items():
        assert {rule["annotations"]["runbook_url"] for rule in rules} == {f"{default}/{name}.md"}


def test_both_renderings_say_the_same_but_for_the_namespace_and_what_must_be_there() -> None:
    plain = [
        rule for group in yaml.safe_load((HERE / "prometheus_alerts.yml").read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
    ]
    assert len(plain) == len(CHART)
    for one, other in zip(plain, CHART, strict=True):
        expr = re.sub(rf'namespace="{NAMESPACE}",?', "", "".join(other["expr"].split()))
        expr = re.sub(r"orabsent\((?:shield_probe_success|leader_election_master_status)\{[^}]*\}\)$", "", expr)
        assert "".join(one["expr"].split()) == expr
        assert (one.get("record"), one.get("alert"), one.get("for")) == (other.get("record"), other.get("alert"), other.get("for"))


@pytest.mark.parametrize("rule", CHART, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_ask_for_series_and_labels_that_exist(rule: dict[str, Any]) -> None:
    assert wrong(rule["expr"]) == []
    assert SELECTOR.search(rule["expr"]) or rule["expr"].startswith("vector(")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_ask_for_series_and_labels_that_exist(dashboard: Path) -> None:
    for expr in queries(dashboard):
        assert wrong(expr) == [], expr
        assert SELECTOR.search(expr), expr


def test_a_limit_of_latency_is_a_bucket() -> None:
    limits = {float(limit) for rule in CHART for limit in re.findall(r'le=~"(\d+)', rule["expr"])}
    assert limits == {1, 5, 300}
    assert {1, 5} <= set(CALL_BUCKETS)
    assert 300 in JOB_BUCKETS


def test_each_tool_is_promised_one_thing() -> None:
    tools = load(HERE)[0].tools
    registered = set(json.loads((ROOT / "tests/unit/mcp/mcp_tools.json").read_text(encoding="utf-8")))
    listed = [*tools.query, *tools.accept, *tools.not_counted]
    assert sorted(listed) == sorted({*registered, "unknown"})


class TestAlerts:
    @pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
    def test_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(self, rule: dict[str, Any]) -> None:
        told = rule["annotations"]
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert told["runbook_url"] == f"{RUNBOOKS}/{rule['alert']}.md"
        assert told["summary"].endswith(".")
        assert told["description"].endswith((".", ")."))
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"])))) | {"namespace"}
        if rule["expr"].startswith("up{"):
            grouped |= TARGET
        if "shield:tool_latency_p95" in rule["expr"]:
            grouped |= {"class"}
        assert set(re.findall(r"\$labels\.(\w+)", told["summary"] + told["description"])) <= grouped

    @pytest.mark.parametrize("name", NAMES)
    def test_has_a_runbook_with_the_four_parts(self, name: str) -> None:
        text = (RUNBOOK_DIRECTORY / f"{name}.md").read_text(encoding="utf-8")
        assert re.findall(r"^#+ (.+)$", text, re.MULTILINE) == [name, "Meaning", "Impact", "Diagnosis", "Mitigation"]
        parts = [part.strip() for part in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]]
        assert all(len(part) > 20 for part in parts)
        assert "```console\n$ " in parts[2]
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (RUNBOOK_DIRECTORY / link).resolve().is_file(), link

    @pytest.mark.parametrize("name", NAMES)
    def test_its_runbook_queries_series_that_exist(self, name: str) -> None:
        text = (RUNBOOK_DIRECTORY / f"{name}.md").read_text(encoding="utf-8")
        words = {*KNOWN, *(label for labels in KNOWN.values() for label in labels), "tool_name"}
        for expr in re.findall(r"promtool query instant \"\$PROM\" '(.+)'$", text, re.MULTILINE):
            assert wrong(expr) == [], expr
            used = set(re.findall(r"\b(?:shield|slo|tool|circuit|workqueue|controller_runtime|leader)[\w:]*[_:]\w+", expr))
            assert used <= words, expr

    def test_every_runbook_belongs_to_an_alert_and_is_listed_with_its_severity(self) -> None:
        assert sorted(path.stem for path in RUNBOOK_DIRECTORY.glob("*.md")) == sorted([*NAMES, "README"])
        index = (RUNBOOK_DIRECTORY / "README.md").read_text(encoding="utf-8")
        for name in NAMES:
            severities = ", ".join(sorted({rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == name}))
            assert f"| [{name}]({name}.md) | {severities} |" in index

    def test_every_alert_has_a_case_in_which_it_is_quiet_fires_and_recovers(self) -> None:
        told = cases()
        assert sorted(told) == NAMES
        for name in NAMES:
            severities = {rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == name}
            whole = [case for case in told[name] if case.quiet and case.fires and case.recovers]
            assert {case.severity for case in whole} <= severities
            assert whole, name
        assert {case.severity for case in told["ShieldCircuitOpen"]} == {"critical", "warning"}
        assert {case.window for case in told["ShieldToolErrorBudgetBurn"]} == {"1h", "6h", "1d", "3d"}
        assert len(nobody()) >= 5

    def test_absence_alerts_only_where_it_is_known_what_must_be_there(self) -> None:
        plain = alerts_in(groups_of((HERE / "prometheus_alerts.yml").read_text(encoding="utf-8")))
        in_chart = alerts_in(groups_of((HERE / "generated/alerts.yaml").read_text(encoding="utf-8")))
        for name in ("ShieldProbeSilent", "ShieldOperatorNoLeader"):
            assert "absent(" in in_chart[name][0]["expr"]
            assert "absent(" not in plain[name][0]["expr"]


class TestConfiguration:
    def test_a_word_that_nobody_knows_is_an_error(self) -> None:
        words = Words(load(HERE)[0].tools, "", "")
        with pytest.raises(KeyError, match="nobody"):
            words.fill("up{$nobody}")

    def test_the_namespace_is_a_matcher_or_nothing(self) -> None:
        tools = load(HERE)[0].tools
        assert Words(tools, "", "").fill('up{$ns job="a"}') == 'up{job="a"}'
        assert Words(tools, "", "").fill("up{$ns}") == "up{}"
        assert Words(tools, "prod", "").fill('up{$ns job="a"}') == 'up{namespace="prod", job="a"}'
        assert Words(tools, "prod", "").fill("up{$ns}") == 'up{namespace="prod"}'

    @pytest.mark.parametrize(
        "sli", [{}, {"bad": "a"}, {"total": "a"}, {"bad": "a", "total": "b", "slice": "c"}, {"slice": "c", "more": "d"}], ids=str
    )
    def test_an_indicator_has_one_form(self, sli: dict[str, str]) -> None:
        with pytest.raises(ValidationError):
            Sli.model_validate(sli)

    def test_budgets_are_what_the_objectives_leave(self) -> None:
        assert {slo.name: slo.budget for slo in load(HERE)[0].slos} == {
            "tool-errors": 0.001,
            "availability": 0.001,
            "query-latency": 0.05,
            "accept-latency": 0.05,
            "ingest-success": 0.01,
            "ingest-latency": 0.05,
            "queue-age": 0.01,
            "freshness": 0.01,
        }

    def test_an_objective_that_does_not_page_has_warnings_only(self) -> None:
        config, rules = load(HERE)
        made = [rule for group in alert_groups(config, rules, Words(config.tools, "", "")) for rule in group["rules"]]
        for slo in config.slos:
            severities = [rule["labels"]["severity"] for rule in made if rule["alert"] == slo.alert]
            assert severities == (["critical", "critical", "warning", "warning"] if slo.pages else ["warning"] * 4)

    def test_every_objective_has_the_records_that_dashboards_of_sloth_read(self) -> None:
        config, rules = load(HERE)
        made = [rule for group in recording_groups(config, rules, Words(config.tools, "", "")) for rule in group["rules"]]
        windows = {f"slo:sli_error:ratio_rate{window}" for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")}
        others = {
            "objective:ratio",
            "error_budget:ratio",
            "current_burn_rate:ratio",
            "period_error_budget_remaining:ratio",
            "time_period:days",
        }
        for slo in config.slos:
            own = {rule["record"] for rule in made if rule.get("labels", {}).get("sloth_slo") == slo.name}
            assert windows | {f"slo:{name}" for name in others} | {"sloth_slo_info"} <= own

    def test_an_objective_of_an_unknown_group_is_noticed(self) -> None:
        config, rules = load(HERE)
        groups = {group.group for group in rules.recording}
        assert {f"shield-slo-{slo.group}" for slo in config.slos} <= groups
        assert isinstance(config, Config)
        assert all(isinstance(slo, Slo) for slo in config.slos)

    def test_durations_are_of_one_unit(self) -> None:
        assert [seconds(text) for text in ("90s", "5m", "6h", "3d")] == [90, 300, 21_600, 259_200]


class TestDashboards:
    @pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
    def test_panels_say_what_they_show_lie_side_by_side_and_are_of_the_chosen_namespace(self, dashboard: Path) -> None:
        board = json.loads(dashboard.read_text(encoding="utf-8"))
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24
            assert not cells & taken
            taken |= cells
        for panel in panels:
            assert panel["description"]
            assert panel["targets"]
            for target in panel["targets"]:
                assert "$namespace" in target["expr"] or "slo:objective" in target["expr"], target["expr"]
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))
        assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "namespace"]

    def test_there_are_the_four_of_the_mission_and_the_overview(self) -> None:
        assert {path.stem for path in DASHBOARDS} == {"mcp-server", "orchestrator", "circuit-breaker", "job-queue", "slo-overview"}
