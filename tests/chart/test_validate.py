"""Values that do not fit together are refused in sentences that a person can act on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.render import refusal, render

PRODUCTION = {"mode": "production"}


def test_production_says_all_that_is_missing_at_once() -> None:
    said = refusal(values=PRODUCTION)
    for part in (
        "existingSecrets.services",
        "existingSecrets.auth",
        "external.qdrant.url",
        "backup.type",
        "external.postgres.cidrs",
        "external.redis.cidrs",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"auth": {"mode": "oidc"}, "publicUrl": "https://a.example.com"}, "auth.oidc.issuer"),
        ({"auth": {"mode": "oidc", "oidc": {"issuer": "https://i"}}}, "publicUrl or auth.oidc.audience"),
        ({"auth": {"mode": "oidc", "oidc": {"issuer": "https://i"}}}, "operator.credentialSecret"),
        ({"auth": {"mode": "oidc", "oidc": {"issuer": "https://i"}}}, "probe.credentialSecret"),
        ({"llm": {"provider": "openai"}}, "llm.baseUrl and llm.model"),
        ({"llm": {"provider": "openai", "baseUrl": "http://x", "model": "m"}}, "llm.cidrs or llm.podLabels"),
        ({"embedding": {"provider": "ollama"}}, "embedding.baseUrl"),
        ({"backup": {"type": "s3"}}, "backup.s3.url"),
        ({"gateway": {"enabled": True, "parentRefs": [{"name": "g"}]}}, "gateway.enabled needs publicUrl"),
        ({"gateway": {"enabled": True}, "publicUrl": "https://a.example.com"}, "gateway.parentRefs"),
        ({"ingress": {"enabled": True}}, "ingress.enabled needs publicUrl"),
        ({"canary": {"mode": "static", "image": {"tag": "1"}}}, "set gateway.enabled"),
        ({"canary": {"mode": "static"}}, "needs what differs"),
        ({"canary": {"weight": 10}}, "belong to canary.mode static"),
        ({"canary": {"mode": "flagger"}}, "canary.flagger.prometheusUrl"),
        ({"ingress": {"enabled": True}, "canary": {"mode": "static"}}, "knows no weights"),
        ({"worker": {"autoscaling": {"type": "keda"}}}, "monitoring.prometheusUrl"),
        ({"api": {"autoscaling": {"minReplicas": 9, "maxReplicas": 2}}}, "minReplicas is above maxReplicas"),
        ({"config": {"SHIELD_POSTGRES_DSN": "postgresql://u:p@h/d"}}, "config.SHIELD_POSTGRES_DSN is a secret"),
        ({"config": {"SHIELD_TELEMETRY_OTLP_ENDPOINT": "http://u:p@h"}}, "holds a credential"),
        ({"egress": {"allow": ["10.0.0.1"]}}, "is not CIDR:port"),
        ({"postgres": {"enabled": False}}, "SHIELD_POSTGRES_DSN"),
        ({"qdrant": {"enabled": False}}, "external.qdrant.url"),
        ({"existingSecrets": {"services": "mine"}}, "set postgres.enabled to false"),
        ({"tracing": {"otlpEndpoint": "http://o:4318"}}, "tracing.cidrs"),
        ({"proxy": {"https": "http://p:1"}}, "networkPolicy.proxyCidrs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_contradiction_is_told_with_what_to_do(values: dict[str, Any], says: str) -> None:
    said = refusal(values=values)
    assert "ERROR: the values do not fit together" in said
    assert says in said


@pytest.mark.parametrize(
    ("flavour", "values", "says"),
    [
        ("production", {"gateway": {"enabled": False}}, "ServiceMonitor"),
        ("production", {"gateway": {"enabled": False}}, "PrometheusRule"),
        ("canary-static", {}, "HTTPRoute"),
        ("canary-flagger", {}, "Flagger"),
        ("keda", {}, "KEDA"),
    ],
)
def test_a_kind_that_the_cluster_does_not_know_is_told_unless_nobody_is_asked(flavour: str, values: dict[str, Any], says: str) -> None:
    assert says in refusal(flavour, {**values, "monitoring": {"disableAPICheck": False}}, check=True)
    render(flavour, values)


def test_a_cluster_that_knows_them_takes_them() -> None:
    apis = ("gateway.networking.k8s.io/v1/HTTPRoute", "monitoring.coreos.com/v1/ServiceMonitor")
    render("canary-static", {"monitoring": {"disableAPICheck": False}}, check=True, apis=apis)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"mcp": {"replica": 3}}, "replica"),
        ({"mode": "staging"}, "mode"),
        ({"canary": {"weight": 101}}, "weight"),
        ({"publicUrl": "shield.example.com"}, "publicUrl"),
    ],
)
def test_the_schema_refuses_what_is_unknown_or_out_of_range(values: dict[str, Any], says: str) -> None:
    assert says in refusal(values=values)


def test_a_global_of_an_umbrella_may_hold_anything() -> None:
    render(values={"global": {"anything": {"goes": True}}})
