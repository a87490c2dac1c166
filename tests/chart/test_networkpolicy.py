"""Who may talk to whom: the policies of a release, judged by an evaluator."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.network import End, Outside, Pod, allowed
from tests.chart.render import FLAVOURS, render

DATABASE, REDIS, QDRANT = Outside("10.20.0.5"), Outside("10.20.1.5"), Outside("10.20.2.5")
API_SERVER, PUBLIC, METADATA = Outside("10.0.0.1"), Outside("93.184.216.34"), Outside("169.254.169.254")
DNS = Pod("kube-system", {"k8s-app": "kube-dns"})
STRANGER, MONITORING, GATEWAY = (
    Pod("elsewhere", {"app": "x"}),
    Pod("monitoring", {"app": "prometheus"}),
    Pod("gateways", {"app": "traefik"}),
)
INGEST = Pod("team", {"app.kubernetes.io/managed-by": "shield-operator"})
PORTS = {"mcp": 8000, "api": 8001, "postgres": 5432, "redis": 6379, "qdrant": 6333}


def pods(flavour: str) -> dict[str, Pod]:
    """The pods of a release by component, with the labels that they really get."""
    found = {}
    for _, template in render(flavour).pods():
        labels = template["metadata"]["labels"]
        found[labels["app.kubernetes.io/component"]] = Pod("team", labels)
    return found


def may(flavour: str, source: End, target: End, port: int, protocol: str = "TCP", **values: Any) -> bool:
    return allowed(render(flavour, values).of("NetworkPolicy"), source, target, port, protocol)


def test_in_dev_each_process_reaches_what_it_needs_and_nothing_else() -> None:
    wanted = {
        "mcp": {"api"},
        "api": {"postgres", "redis", "qdrant"},
        "worker": {"postgres", "redis", "qdrant"},
        "migrate": {"postgres", "redis", "qdrant"},
        "operator": {"api"},
        "probe": {"mcp"},
        "smoke": {"mcp"},
        "hooks": set(),
        "postgres": set(),
        "redis": set(),
        "qdrant": set(),
    }
    ends = pods("dev")
    assert set(ends) == set(wanted)
    for name, source in ends.items():
        reached = {target for target, port in PORTS.items() if may("dev", source, ends[target], port)}
        assert reached == wanted[name], name
        assert may("dev", source, DNS, 53, "UDP") is (name not in {"postgres", "redis", "qdrant"}), name


def test_every_pod_of_every_flavour_is_under_a_policy_of_both_directions() -> None:
    for flavour in set(FLAVOURS) - {"umbrella"}:
        for name, pod in pods(flavour).items():
            assert not may(flavour, pod, Outside("203.0.113.9"), 12345), (flavour, name)
            assert not may(flavour, STRANGER, pod, 12345), (flavour, name)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "100.64.0.1", "127.0.0.1", "198.51.99.7", "fd00::1", "fe80::1"]
)
def test_crawls_reach_the_public_web_but_nothing_private_nor_denied(address: str) -> None:
    worker = pods("production")["worker"]
    assert may("production", worker, PUBLIC, 443)
    assert may("production", worker, Outside("2606:2800:220:1::1"), 80)
    assert not may("production", worker, Outside(address), 443)
    assert not may("production", worker, PUBLIC, 22)


def test_a_private_range_opens_only_where_it_is_said() -> None:
    worker = pods("oidc-ingress")["worker"]
    assert may("oidc-ingress", worker, Outside("10.1.2.3"), 8080)
    assert not may("oidc-ingress", worker, Outside("10.1.2.3"), 80)
    assert not may("oidc-ingress", worker, Outside("10.2.2.3"), 8080)


def test_production_reaches_its_services_by_their_networks() -> None:
    ends = pods("production")
    for name in ("api", "worker", "migrate"):
        assert may("production", ends[name], DATABASE, 5432)
        assert may("production", ends[name], QDRANT, 6333)
        assert not may("production", ends[name], DATABASE, 22)
    assert not may("production", ends["mcp"], DATABASE, 5432)
    assert not may("production", ends["mcp"], PUBLIC, 443)
    assert may("production", ends["migrate"], Outside("10.20.3.9"), 443)
    assert not may("production", ends["worker"], Outside("10.20.3.9"), 443)
    assert may("production", ends["worker"], Pod("llm", {"app": "litellm"}), 4000)


def test_only_operator_and_hooks_reach_the_kubernetes_api() -> None:
    ends = pods("production")
    assert [name for name, pod in ends.items() if may("production", pod, API_SERVER, 6443)] == ["operator"]
    assert not may("production", ends["operator"], Outside("10.0.0.2"), 443)
    assert may("dev", pods("dev")["hooks"], API_SERVER, 6443)


def test_clients_and_scrapers_may_be_narrowed() -> None:
    ends = pods("production")
    assert may("production", GATEWAY, ends["mcp"], 8000)
    assert may("production", GATEWAY, ends["api"], 8001)
    assert not may("production", STRANGER, ends["mcp"], 8000)
    assert not may("production", STRANGER, ends["api"], 8001)
    assert may("dev", STRANGER, pods("dev")["mcp"], 8000)
    for name in ("mcp", "api", "worker", "operator", "probe"):
        assert may("production", MONITORING, ends[name], 9090)
        assert not may("production", STRANGER, ends[name], 9090)


def test_stores_answer_pods_of_ingestjobs_here_and_where_it_is_said() -> None:
    store = pods("keda")["postgres"]
    there = Pod("data", dict(INGEST.labels), {"shield.example.com/ingest": "true"})
    assert may("keda", INGEST, store, 5432)
    assert may("keda", there, store, 5432)
    assert not may("dev", there, pods("dev")["postgres"], 5432)
    assert not may("keda", Pod("data", {"app": "x"}, there.namespace_labels), store, 5432)
    assert may("keda", INGEST, PUBLIC, 443)
    assert not may("keda", INGEST, METADATA, 80)


def test_webhooks_and_the_identity_provider_open_the_web_to_who_needs_it() -> None:
    assert may("keda", pods("keda")["api"], PUBLIC, 443)
    assert not may("dev", pods("dev")["api"], PUBLIC, 443)
    for name in ("api", "mcp"):
        assert may("oidc-ingress", pods("oidc-ingress")[name], PUBLIC, 443)
        assert not may("oidc-ingress", pods("oidc-ingress")[name], PUBLIC, 443, networkPolicy={"oidcCidrs": ["192.0.2.0/24"]})


def test_the_canary_is_under_the_same_policies() -> None:
    rendered = render("canary-static")
    canary = Pod("team", rendered.one("Deployment", "mcp-canary")["spec"]["template"]["metadata"]["labels"])
    assert may("canary-static", canary, pods("canary-static")["api"], 8001)
    assert not may("canary-static", canary, pods("canary-static")["postgres"], 5432)


def test_policies_may_be_left_out() -> None:
    assert render("umbrella").of("NetworkPolicy") == []
