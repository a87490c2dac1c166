"""Rules and alerts: as generated, for this namespace, of what runs."""

from __future__ import annotations

from typing import Any

import yaml

from tests.chart.render import CHART, render


def rules(flavour: str = "production", **values: Any) -> list[dict[str, Any]]:
    return [rule for one in render(flavour, values).of("PrometheusRule") for group in one["spec"]["groups"] for rule in group["rules"]]


def groups(flavour: str = "production", **values: Any) -> set[str]:
    return {group["name"] for one in render(flavour, values).of("PrometheusRule") for group in one["spec"]["groups"]}


def test_all_generated_rules_are_there() -> None:
    files = [
        yaml.safe_load((CHART / "files" / "monitoring" / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("recording_rules", "alerts")
    ]
    assert groups() == {group["name"] for file in files for group in file["groups"]}
    assert len(rules()) == sum(len(group["rules"]) for file in files for group in file["groups"])


def test_no_token_is_left_and_templates_of_prometheus_are() -> None:
    text = str(rules())
    assert "__NAMESPACE__" not in text
    assert "__RUNBOOKS__" not in text
    assert 'namespace="team"' in text
    assert "{{ $" in text


def test_groups_of_what_does_not_run_are_left_out() -> None:
    assert "shield-operator" not in groups(operator={"enabled": False})
    assert not {"shield-probe", "shield-slo-availability"} & groups(probe={"enabled": False})


def test_an_alert_may_be_left_out_and_all_get_more_labels() -> None:
    alert = next(rule["alert"] for rule in rules() if "alert" in rule)
    assert alert not in {rule.get("alert") for rule in rules(monitoring={"rules": {"disabled": [alert]}})}
    assert all(rule["labels"]["team"] == "knowledge" for rule in rules() if "alert" in rule)
    assert all("team" not in rule.get("labels", {}) for rule in rules() if "record" in rule)
    assert all(one["metadata"]["labels"]["release"] == "prometheus" for one in render("production").of("PrometheusRule"))


def test_every_alert_leads_to_its_runbook() -> None:
    base = "https://runbooks.example.com/shield/"
    found = [rule for rule in rules(monitoring={"rules": {"runbooksUrl": base}}) if "alert" in rule]
    assert found
    assert all(rule["annotations"]["runbook_url"] == f"{base}{rule['alert']}.md" for rule in found)


def test_none_without_being_asked_for() -> None:
    assert render().of("PrometheusRule") == []
