"""The operator and the pods that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from shield_operator.ingestjobs.job import read_template
from shield_operator.settings import Settings
from tests.chart.render import FLAVOURS, render


def template(flavour: str = "dev", **values: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render(flavour, values).one("ConfigMap", "operator-pod")["data"]["pod.yaml"])
    return found


def test_it_reads_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in render("keda").env("Deployment", "operator").items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.orchestrator_url == "http://shield-api.team.svc:8001"
    assert settings.worker_image.endswith("/shield-crawler:0.2.0")
    assert (settings.namespaces, settings.max_concurrent_jobs) == (("team-a", "team-b"), 20)
    assert str(settings.api_key_file) == "/etc/shield/operator/operator"


def test_the_pod_template_is_one_that_the_operator_reads(tmp_path: Path) -> None:
    for flavour in set(FLAVOURS) - {"oidc-ingress"}:
        path = tmp_path / "pod.yaml"
        path.write_text(render(flavour).one("ConfigMap", "operator-pod")["data"]["pod.yaml"])
        assert read_template(path)["spec"]["containers"][0]["name"] == "worker"


def test_pods_of_ingestjobs_get_the_services_secret_and_no_servers_settings() -> None:
    [container] = template()["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "shield-services"}}]
    names = {one["name"] for one in container["env"]}
    assert {"SHIELD_MODE", "SHIELD_QDRANT_URL", "SHIELD_EMBEDDING_MODEL"} <= names
    assert not {name for name in names if "AUTH" in name or "ALLOWED" in name or name == "SHIELD_HOST"}
    assert template(ingestJobs={"secretName": "shield-worker"})["spec"]["containers"][0]["envFrom"] == [
        {"secretRef": {"name": "shield-worker"}}
    ]


def test_pull_secrets_and_certificates_reach_them() -> None:
    pod = template("production")["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["volumes"][0]["configMap"]["name"] == "corporate-ca"
    assert {"name": "SSL_CERT_FILE", "value": "/etc/shield/ca/ca.crt"} in pod["containers"][0]["env"]


def test_a_change_of_the_template_restarts_the_operator() -> None:
    def checksum(**values: Any) -> str:
        annotations = render(values=values).one("Deployment", "operator")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/pod"])

    assert checksum() != checksum(ingestJobs={"secretName": "other"})


def test_its_key_is_the_only_one_it_sees() -> None:
    [credential] = [one for one in render().pod("Deployment", "operator")["volumes"] if one["name"] == "credential"]
    assert credential["secret"]["items"] == [{"key": "operator", "path": "operator"}]
    open_server = render(values={"auth": {"mode": "none"}})
    assert "SHIELD_OPERATOR_API_KEY_FILE" not in open_server.env("Deployment", "operator")


def test_it_may_be_left_out() -> None:
    assert "operator" not in render("oidc-ingress").names("Deployment")


def test_its_lease_goes_with_the_release_and_no_upgrade_touches_who_leads() -> None:
    [lease] = [one for one in render("dev").objects if one["kind"] == "Lease"]
    [operator] = [one for one in render("dev").objects if one["kind"] == "Deployment" and one["metadata"]["name"] == "shield-operator"]
    names = {each["name"]: each.get("value") for each in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert lease["metadata"]["name"] == names["SHIELD_OPERATOR_LEASE_NAME"]
    assert "spec" not in lease
