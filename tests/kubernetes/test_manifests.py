"""The operator's manifests on a real API server: they apply, and they give the rights that were meant and no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kind.control_plane import ControlPlane
from kind.kubectl import KubectlFailed
from kind.waiting import until
from tests.fleet import Fleet
from tests.kubernetes.operator_process import running_operator
from tests.unit.operator.api.examples import Obj, a_knowledge_base, a_schedule, a_web_job

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
    ("list", "pods"),
    ("get", "persistentvolumeclaims"),
    ("create", "events"),
]
MAY_NOT = [
    *((verb, "secrets") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *((verb, "configmaps") for verb in ("get", "list", "create")),
    *((verb, "pods") for verb in ("get", "watch", "create", "patch", "delete")),
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


class TestTheOperatorUnderItsRights:
    def test_does_all_its_work_and_is_refused_nothing(self, installed: ControlPlane, tmp_path: Path) -> None:
        """With the token of its ServiceAccount, in place of an administrator's certificate."""
        namespace, log = "rights", tmp_path / "log"
        installed.kubectl("create", "namespace", namespace)
        kubeconfig = {"kubeconfig": str(_kubeconfig_of_the_operator(installed, tmp_path))}
        fleet = Fleet(workers=1, mcp=False)  # a worker deletes
        try:
            fleet.start()
            settings = {"lease_namespace": "shield-system", "orchestrator_url": fleet.api_url, **kubeconfig}
            with running_operator(installed, namespace, log, **settings):
                self.use_everything(installed, namespace)
        finally:
            fleet.close()
        said = log.read_text(encoding="utf-8", errors="replace")
        assert said.strip()
        assert "forbidden" not in said.lower()

    def use_everything(self, api: ControlPlane, namespace: str) -> None:
        """Each right once: a finalizer, a Job made, paused and removed, a status of each kind, Events, the Lease, an end after its time."""

        def apply(obj: Obj) -> None:
            api.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps({**obj, "metadata": {"name": obj["metadata"]["name"]}}))

        def one(kind: str, name: str) -> Obj:
            found: list[Obj] = api.get(kind, "-n", namespace)["items"]
            return next((item for item in found if item["metadata"]["name"] == name), {})

        def status(kind: str, name: str) -> Obj:
            return one(kind, name).get("status") or {}

        def says(kind: str, name: str, type_: str) -> str:
            return next((each["status"] for each in status(kind, name).get("conditions", ()) if each["type"] == type_), "")

        apply(a_knowledge_base("handbook", deletionPolicy="Delete"))
        until("the knowledge base is ready", lambda: says("kb", "handbook", "Ready") == "True", limit=120)
        assert one("kb", "handbook")["metadata"]["finalizers"] == ["shield.hx-citadel.io/delete-knowledge"]
        apply(a_schedule("hourly", schedule="@hourly"))
        until("the schedule's next time", lambda: "nextScheduleTime" in status("ijs", "hourly"), limit=60)
        apply(a_web_job("docs"))
        until("its Job", lambda: bool(one("job", "docs-1")), limit=60)
        apply(a_web_job("docs", suspend=True))
        until("its Job is suspended", lambda: one("job", "docs-1")["spec"]["suspend"] is True, limit=60)
        api.kubectl("delete", "ij", "docs", "-n", namespace)
        apply(a_web_job("greedy", ttlSecondsAfterFinished=0, podTemplate={"resources": {"requests": {"cpu": 1000}}}))
        until("its removal", lambda: not one("ij", "greedy"), limit=60)
        assert "Started" in api.kubectl("get", "events", "-n", namespace)
        assert api.get("lease", "shield-operator", "-n", "shield-system")["spec"]["holderIdentity"]
        api.kubectl("delete", "kb", "handbook", "-n", namespace, "--wait=false")
        until("the finalizer is gone", lambda: not one("kb", "handbook"), limit=120)


def _kubeconfig_of_the_operator(api: ControlPlane, directory: Path) -> Path:
    """A kubeconfig that holds nothing but the ServiceAccount's token."""
    token = api.kubectl("create", "token", "shield-operator", "-n", "shield-system").strip()
    config = yaml.safe_load(api.kubeconfig.read_text(encoding="utf-8"))
    for user in config["users"]:
        user["user"] = {"token": token}
    path = directory / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
