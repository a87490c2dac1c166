"""The orchestrator: it alone answers REST, and it waits for its schema by not being ready."""

from __future__ import annotations

from tests.chart.render import render


def test_it_runs_in_server_mode_on_its_own_port_with_its_secrets() -> None:
    container = render().container("Deployment", "api")
    assert container["args"] == ["api"]
    assert render().env("Deployment", "api")["SHIELD_MODE"] == "server"
    assert [next(iter(one.values()))["name"] for one in container["envFrom"]] == ["shield-config", "shield-services", "shield-auth"]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"http": 8001, "metrics": 9090}
    assert render().one("Service", "api")["spec"]["ports"][0]["port"] == 8001


def test_readiness_asks_the_process_and_liveness_only_whether_it_turns() -> None:
    container = render().container("Deployment", "api")
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}


def test_no_call_is_lost_while_a_pod_ends() -> None:
    spec = render().one("Deployment", "api")["spec"]
    pod = spec["template"]["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] == 5
    assert pod["terminationGracePeriodSeconds"] > 5 + 60


def test_existing_secrets_and_digest_of_production() -> None:
    container = render("production").container("Deployment", "api")
    assert [next(iter(one.values()))["name"] for one in container["envFrom"]] == [
        "shield-config",
        "shield-services-prod",
        "shield-auth-prod",
    ]
    assert container["image"].endswith("/shield-server@sha256:0000000000000000000000000000000000000000000000000000000000000001")


def test_a_certificate_bundle_and_the_outbound_proxy_reach_it() -> None:
    rendered = render("production")
    env = rendered.env("Deployment", "api")
    assert env["SSL_CERT_FILE"] == "/etc/shield/ca/ca.crt"
    assert env["HTTPS_PROXY"] == "http://proxy.example.com:3128"
    assert {".svc", "shield-api", ".example.internal"} <= set(env["NO_PROXY"].split(","))
    assert "HTTP_PROXY" not in env
    assert {"name": "ca", "mountPath": "/etc/shield/ca", "readOnly": True} in rendered.container("Deployment", "api")["volumeMounts"]


def test_a_change_of_the_settings_restarts_the_pods_and_another_release_name_does_not_matter() -> None:
    def sums(**values: object) -> dict[str, str]:
        annotations: dict[str, str] = render(values=values).one("Deployment", "api")["spec"]["template"]["metadata"]["annotations"]
        return annotations

    assert sums() == sums(keepDataOnUninstall=True)
    assert sums()["checksum/config"] != sums(logLevel="debug")["checksum/config"]
    assert sums()["checksum/secrets"] != sums(existingSecrets={"revision": "2"})["checksum/secrets"]


def test_pods_spread_over_nodes_and_zones_by_their_own_revision() -> None:
    constraints = render("production").pod("Deployment", "api")["topologySpreadConstraints"]
    assert {one["topologyKey"] for one in constraints} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert all(one["matchLabelKeys"] == ["pod-template-hash"] for one in constraints)
    assert render("production").pod("Deployment", "api")["priorityClassName"] == "high"
