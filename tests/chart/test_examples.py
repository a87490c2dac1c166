"""The examples that stand beside the chart: what they name exists in it, or in what Shield exposes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from shield.settings import Settings
from shield.telemetry.series import SERIES
from tests.chart.render import render

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "integrations"
FILES = (
    "alertmanager-pagerduty",
    "argo-rollouts",
    "external-secrets",
    "kagent-remotemcpserver",
    "kueue-queue",
    "litellm",
    "toolhive-mcpserverentry",
)


def objects(name: str) -> dict[str, dict[str, Any]]:
    """The objects of an example by kind and name."""
    found = yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}


@pytest.mark.parametrize("name", FILES)
def test_every_address_of_shield_is_one_that_the_chart_serves(name: str) -> None:
    rendered = render(namespace="shield")
    served = {
        (f"{service['metadata']['name']}.shield.svc", port["port"], "/mcp")
        for service in rendered.of("Service")
        for port in service["spec"]["ports"]
        if port["name"] == "http"
    }
    for url in re.findall(r"http://shield[^\s\"]+", (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")):
        parts = urlsplit(url)
        assert (parts.hostname, parts.port, parts.path) in served


def test_argo_runs_the_charts_pods_and_owns_its_own_services_and_route() -> None:
    found = objects("argo-rollouts")
    pods = render(namespace="shield").one("Deployment", "mcp")["spec"]["template"]
    canary = found["Rollout/shield-mcp"]["spec"]["strategy"]["canary"]
    backends = {one["name"] for one in found["HTTPRoute/shield-rollout"]["spec"]["rules"][0]["backendRefs"]}
    assert backends == {canary["stableService"], canary["canaryService"]}
    for name in backends:
        service = found[f"Service/{name}"]["spec"]
        assert service["selector"].items() <= pods["metadata"]["labels"].items()
        assert service["ports"][0]["targetPort"] in {port["name"] for port in pods["spec"]["containers"][0]["ports"]}
        assert name not in render(namespace="shield").names("Service")
    assert found["Rollout/shield-mcp"]["spec"]["workloadRef"]["name"] == "shield-mcp"


def test_argo_asks_for_series_that_there_are() -> None:
    text = (EXAMPLES / "argo-rollouts.yaml").read_text(encoding="utf-8")
    known = {series.name for series in SERIES}
    assert set(re.findall(r"rate\((\w+)\{", text)) <= known


def test_the_pager_gets_what_is_critical_and_alerts_that_are_named_exist() -> None:
    spec = objects("alertmanager-pagerduty")["AlertmanagerConfig/shield"]["spec"]
    routes = {route["matchers"][0]["value"]: route["receiver"] for route in spec["route"]["routes"]}
    assert routes == {"critical": "pager", "warning": "channel"}
    alerts = yaml.safe_load((ROOT / "monitoring" / "generated" / "alerts.yaml").read_text(encoding="utf-8"))
    names = [rule["alert"] for group in alerts["groups"] for rule in group["rules"]]
    severities = {rule["labels"]["severity"] for group in alerts["groups"] for rule in group["rules"]}
    assert severities <= {"critical", "warning", "info"}
    for rule in spec["inhibitRules"]:
        for one in (*rule["sourceMatch"], *rule["targetMatch"]):
            if one["name"] == "alertname":
                assert any(re.fullmatch(one["value"], name) for name in names), one


def test_external_secrets_make_what_the_chart_reads() -> None:
    for one in objects("external-secrets").values():
        for entry in one["spec"]["data"]:
            group, _, field = entry["secretKey"].removeprefix("SHIELD_").lower().partition("_")
            model: Any = Settings.model_fields[group].annotation
            assert field in model.model_fields


def test_the_queue_is_that_of_the_ingestjob_in_its_namespace() -> None:
    job = yaml.safe_load((EXAMPLES.parent / "ingestjob-kueue.yaml").read_text(encoding="utf-8"))
    found = objects("kueue-queue")
    assert f"LocalQueue/{job['metadata']['labels']['kueue.x-k8s.io/queue-name']}" in found
    assert f"WorkloadPriorityClass/{job['metadata']['labels']['kueue.x-k8s.io/priority-class']}" in found
    assert found["LocalQueue/batch"]["spec"]["clusterQueue"] == found["ClusterQueue/ingestion"]["metadata"]["name"]
    covered = found["ClusterQueue/ingestion"]["spec"]["resourceGroups"][0]["coveredResources"]
    assert set(job["spec"]["podTemplate"]["resources"]["requests"]) == set(covered)


def test_litellms_configuration_is_what_the_documentation_of_providers_says() -> None:
    config = yaml.safe_load(objects("litellm")["ConfigMap/litellm"]["data"]["config.yaml"])
    assert "-" not in "".join(config["mcp_servers"])
    assert config["litellm_settings"]["num_retries"] == 0
    assert "api_key" in config["model_list"][0]["litellm_params"]


@pytest.mark.parametrize("name", FILES)
def test_no_example_holds_a_secret(name: str) -> None:
    for one in objects(name).values():
        assert one["kind"] != "Secret"
