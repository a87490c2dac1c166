"""The operator's manifests on a real API server: they apply, and they give the rights that were meant and no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kind.control_plane import ControlPlane
from kind.kubectl import KubectlFailed
from kind.waiting import until

ROOT = Path(__file__).parents[2]
OPERATOR = "system:serviceaccount:shield-system:shield-operator"
GROUP = "shield.hx-citadel.io"

MAY = [
    *((verb, f"{kind}.{GROUP}") for verb in ("get", "list", "watch") for kind in ("ingestjobs", "ingestschedules", "knowledgebases")),
    ("create", f"ingestjobs.{GROUP}"),
    ("delete", f"ingestjobs.{GROUP}"),
    ("patch", f"ingestjobs.{GROUP}/status"),
    ("patch", f"ingestschedules.{GROUP}/status"),
    ("patch", f"knowledgebases.{GROUP}/status"),
    ("patch", f"knowledgebases.{GROUP}"),
    *((verb, "jobs.batch") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *((verb, "pods") for verb in ("get", "list", "watch")),
    ("get", "persistentvolumeclaims"),
    ("create", "events"),
]
MAY_NOT = [
    *((verb, "secrets") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *((verb, "configmaps") for verb in ("get", "list", "create")),
    *((verb, "pods") for verb in ("create", "patch", "delete")),
    ("create", "pods/exec"),
    ("get", "pods/log"),
    ("create", "serviceaccounts/token"),
    ("impersonate", "serviceaccounts"),
    ("list", "persistentvolumeclaims"),
    ("patch", "persistentvolumeclaims"),
    ("patch", f"ingestjobs.{GROUP}"),
    ("update", f"knowledgebases.{GROUP}"),
    ("delete", f"knowledgebases.{GROUP}"),
    ("delete", f"ingestschedules.{GROUP}"),
    ("create", "clusterroles.rbac.authorization.k8s.io"),
    ("create", "deployments.apps"),
    ("list", "namespaces"),
    ("list", "nodes"),
    ("*", "*"),
]


@pytest.fixture(scope="module")
def installed(plane: ControlPlane) -> ControlPlane:
    """The API server with everything applied."""
    crds = str(ROOT / "operator" / "manifests" / "crds")
    plane.kubectl("apply", "--server-side", "-f", crds)
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", crds)
    plane.kubectl("apply", "--server-side", "-f", str(ROOT / "operator" / "manifests" / "operator.yaml"))
    return plane


def can(api: ControlPlane, who: str, verb: str, what: str, namespace: str = "default") -> bool:
    resource, _, subresource = what.partition("/")
    flags = [f"--subresource={subresource}"] if subresource else []
    try:
        return api.kubectl("auth", "can-i", verb, resource, *flags, f"--as={who}", "-n", namespace).strip().endswith("yes")
    except KubectlFailed:  # it exits with 1 for `no`
        return False


class TestRights:
    @pytest.mark.parametrize(("verb", "what"), MAY)
    def test_the_operator_may(self, installed: ControlPlane, verb: str, what: str) -> None:
        assert can(installed, OPERATOR, verb, what)

    @pytest.mark.parametrize(("verb", "what"), MAY_NOT)
    def test_the_operator_may_not(self, installed: ControlPlane, verb: str, what: str) -> None:
        assert not can(installed, OPERATOR, verb, what)

    @pytest.mark.parametrize("verb", ["get", "create", "update"])
    def test_leases_are_its_own_namespaces(self, installed: ControlPlane, verb: str) -> None:
        assert can(installed, OPERATOR, verb, "leases.coordination.k8s.io", "shield-system")
        assert not can(installed, OPERATOR, verb, "leases.coordination.k8s.io", "default")

    def test_the_matrix_is_all_there_is(self, installed: ControlPlane) -> None:
        told = {(verb, resource) for verb, resource in MAY} | {
            ("update", f"{kind}.{GROUP}/finalizers") for kind in ("ingestjobs", "ingestschedules")
        }
        rules = installed.get("clusterrole", "shield-operator")["rules"]
        granted = {
            (verb, _qualified(resource, group))
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        assert granted == told

    def test_who_edits_a_namespace_may_ingest_and_who_views_may_look(self, installed: ControlPlane) -> None:
        for role in ("edit", "view"):
            installed.kubectl("create", "rolebinding", f"{role}-{role}", f"--clusterrole={role}", f"--user={role}", "-n", "default")
        until("the aggregation of roles", lambda: can(installed, "edit", "create", f"ingestjobs.{GROUP}"), limit=60)
        until("the aggregation of roles", lambda: can(installed, "view", "get", f"ingestjobs.{GROUP}"), limit=60)
        assert not can(installed, "view", "create", f"ingestjobs.{GROUP}")
        assert not can(installed, "edit", "patch", f"ingestjobs.{GROUP}/status")
        assert not can(installed, "edit", "create", f"ingestjobs.{GROUP}", "shield-system")


def _qualified(resource: str, group: str) -> str:
    name, slash, subresource = resource.partition("/")
    return f"{name}.{group}{slash}{subresource}" if group else resource


class TestPods:
    def test_the_operators_pod_keeps_the_restricted_profile(self, installed: ControlPlane) -> None:
        """The namespace enforces it."""
        template = installed.get("deployment", "shield-operator", "-n", "shield-system")["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "shield-system"}, "spec": template["spec"]}
        installed.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(pod))
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        with pytest.raises(KubectlFailed, match="violates PodSecurity"):
            installed.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(pod))

    def test_the_pod_template_is_one(self, installed: ControlPlane) -> None:
        data = installed.get("configmap", "shield-operator-pod", "-n", "shield-system")["data"]
        template = yaml.safe_load(data["pod.yaml"])
        assert set(template) <= {"metadata", "spec"}
        assert [container["name"] for container in template["spec"]["containers"]] == ["worker"]
