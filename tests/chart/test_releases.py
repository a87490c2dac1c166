"""Releases on a real API server with its controllers and played nodes: install, upgrade, scale, canary, rollback, uninstall, under both Helm versions.

KWOK plays the nodes: pods become ready and Jobs complete without running anything. What is real is all that Helm, the API server and the controllers do with
the objects: field owners, hooks, immutable fields, garbage collection.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kind.binaries import binary
from kind.control_plane import ControlPlane
from kind.errors import NotReadyInTime
from kind.kubectl import KubectlFailed
from kind.waiting import until
from tests.chart.render import CHART, NAMESPACE, render

FAKE = {
    "nodeSelector": {"kwok.x-k8s.io/node": "fake"},
    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    "global": {"imageRegistry": "registry.invalid"},
    "monitoring": {"disableAPICheck": True},
}
GATEWAY = {"publicUrl": "https://shield.example.com", "gateway": {"enabled": True, "parentRefs": [{"name": "public"}]}}
LEFT_BY_KUBERNETES = {"serviceaccount/default", "configmap/kube-root-ca.crt"}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane"), kwok=True) as plane:
        plane.kubectl("label", "node", "kwok-0", "kwok.x-k8s.io/node=fake", "--overwrite")
        plane.kubectl("apply", "-f", "-", input=json.dumps(_any_kind("gateway.networking.k8s.io", "v1", "HTTPRoute")))
        yield plane


def _any_kind(group: str, version: str, kind: str) -> dict[str, Any]:
    """A CRD that takes everything: what is looked at is who writes the object, not whether it is valid."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    annotations = {"api-approved.kubernetes.io": "unapproved, for a test"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": annotations},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


@pytest.fixture(params=["helm", "helm3"])
def helm(request: pytest.FixtureRequest, plane: ControlPlane) -> Callable[..., str]:
    """Runs Helm in a namespace of its own."""
    program = str(binary(request.param))
    namespace = f"{NAMESPACE}-{request.param}"

    def run(verb: str, *arguments: str, values: dict[str, Any] | None = None) -> str:
        given = ["-f", str(CHART / "ci" / "local-values.yaml"), "-f", "-"] if values is not None else []
        done = subprocess.run(
            [program, verb, "shield", *arguments, *given, "-n", namespace, "--kubeconfig", str(plane.kubeconfig)],
            input=json.dumps({**FAKE, **(values or {})}),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.namespace = namespace  # type: ignore[attr-defined]
    return run


def test_a_release_lives_through_upgrades_autoscaling_canary_and_rollback_and_leaves_nothing(
    plane: ControlPlane, helm: Callable[..., str]
) -> None:
    namespace: str = helm.namespace  # type: ignore[attr-defined]
    waits = ["--wait", "--timeout", "240s"]

    def get(*what: str) -> Any:
        return plane.get("-n", namespace, *what)

    def migrations() -> set[str]:
        return {one["metadata"]["name"] for one in get("jobs", "-l", "app.kubernetes.io/component=migrate")["items"]}

    def mcp_weights() -> list[int]:
        rules = get("httproutes", "shield")["spec"]["rules"]
        return [one.get("weight", 1) for one in next(rule for rule in rules if "headers" not in rule["matches"][0])["backendRefs"]]

    plane.kubectl("create", "namespace", namespace)
    plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    helm("install", str(CHART), *waits, values={})
    assert get("deployments", "shield-mcp")["status"]["readyReplicas"] == 1
    first = migrations()
    assert len(first) == 1

    # An autoscaler takes the replicas over, and another upgrade leaves its number alone.
    scaled = {"mcp": {"autoscaling": {"enabled": True, "minReplicas": 1, "maxReplicas": 5}}}
    helm("upgrade", str(CHART), *waits, values=scaled)
    assert not migrations() & first
    plane.kubectl("scale", "-n", namespace, "deployment/shield-mcp", "--replicas=3")
    helm("upgrade", str(CHART), *waits, values={**scaled, "logLevel": "debug"})
    assert get("deployments", "shield-mcp")["spec"]["replicas"] == 3
    assert get("configmaps", "shield-config")["data"]["SHIELD_LOG_LEVEL"] == "debug"

    # A canary, another weight by --reuse-values, and back.
    canary = {"canary": {"mode": "static", "weight": 10, "image": {"tag": "0.3.0"}}}
    helm("upgrade", str(CHART), *waits, values={**scaled, **GATEWAY, **canary})
    assert mcp_weights() == [90, 10]
    helm("upgrade", str(CHART), "--reuse-values", "--set", "canary.weight=50", *waits)
    assert mcp_weights() == [50, 50]
    assert get("deployments", "shield-mcp")["spec"]["replicas"] == 3
    helm("rollback", *waits)
    assert mcp_weights() == [90, 10]
    helm("rollback", "1", *waits)
    assert not get("deployments", "-l", "track=canary")["items"]

    helm("uninstall", "--wait", "--timeout", "240s")
    _empty(plane, namespace)
    crds = plane.get("crds", "-l", "app.kubernetes.io/part-of=shield")["items"]
    assert len(crds) == 3
    plane.kubectl("delete", "crds", "-l", "app.kubernetes.io/part-of=shield")
    plane.kubectl("delete", "namespace", namespace, timeout=120)


def _empty(plane: ControlPlane, namespace: str) -> None:
    """Nothing of ours is left, in the namespace or in the cluster; garbage collection has a minute."""
    kinds = "pods,services,deployments,statefulsets,jobs,configmaps,secrets,serviceaccounts,persistentvolumeclaims,networkpolicies,roles,rolebindings,hpa,pdb"
    left: set[str] = set()

    def empty() -> bool:
        nonlocal left
        left = set(plane.kubectl("get", "-n", namespace, kinds, "-o", "name").split()) - LEFT_BY_KUBERNETES
        left |= set(
            plane.kubectl("get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/part-of=shield", "-o", "name").split()
        )
        return not left

    try:
        until("the namespace is empty", empty, limit=60, pause=0.5)
    except NotReadyInTime as error:
        raise AssertionError(f"left behind: {sorted(left)}") from error


def test_the_hooks_rights_are_enough_for_its_work_and_for_no_other_secret(plane: ControlPlane, tmp_path: Path) -> None:
    """The program of the hook, with the token of its ServiceAccount, against the real API server."""
    namespace = "hooks"
    plane.kubectl("create", "namespace", namespace)
    rendered = render(namespace=namespace)
    rights = [
        one for one in rendered.objects if one["metadata"]["labels"]["app.kubernetes.io/component"] == "hooks" and one["kind"] != "Job"
    ]
    plane.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": rights}))
    token = plane.kubectl("create", "token", "-n", namespace, "shield-hooks").strip()
    config = json.loads(plane.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    (tmp_path / "kubeconfig").write_text(json.dumps(config))

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        command = [str(Path(".venv/bin/shield-operator").resolve()), *arguments]
        environment = {
            "PATH": "/usr/bin",
            "SHIELD_OPERATOR_KUBECONFIG": str(tmp_path / "kubeconfig"),
            "SHIELD_OPERATOR_REQUEST_TIMEOUT": "5",
        }
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    ensure, remove = (rendered.container("Job", name)["args"] for name in ("secrets", "secrets-delete"))
    for _ in range(2):
        done = run(ensure)
        assert done.returncode == 0, done.stdout + done.stderr
    made = {one["metadata"]["name"]: one for one in plane.get("-n", namespace, "secrets")["items"]}
    assert set(made) == {"shield-stores", "shield-services", "shield-auth", "shield-keys"}
    password = base64.b64decode(made["shield-stores"]["data"]["postgres-password"]).decode()
    assert password in base64.b64decode(made["shield-services"]["data"]["SHIELD_POSTGRES_DSN"]).decode()
    assert run([*remove, "some-other"]).returncode == 1
    assert plane.get("-n", namespace, "secrets")["items"] == []
    with pytest.raises(KubectlFailed, match="forbidden"):
        plane.kubectl("get", "-n", namespace, "secret", "some-other", f"--token={token}", "--kubeconfig", str(tmp_path / "kubeconfig"))
