"""Shield and its operator on the local cluster, and a team's namespace that may ingest; all from plain manifests.

The images must be in the cluster's registry: `make images ARGS="operator server services"`.
"""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from images.catalogue import OPERATOR, SERVER, TEST_SERVICES, version
from kind.cluster import Cluster
from kind.settings import KindSettings
from kind.status import status
from kind.waiting import until
from tests.kubernetes.services.deploy import RESTRICTED, Deployed, Kubectl, deploy

MANIFESTS = Path(__file__).parents[3] / "operator" / "manifests"
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
SHIELD, SYSTEM, TEAM, OTHER_TEAM = "shield", "shield-system", "team-a", "team-b"
GROUP = "shield.hx-citadel.io"


@dataclass(frozen=True)
class Installation:
    """What the tests use."""

    cluster: Cluster
    kubectl: Kubectl
    shield: Deployed
    key: str
    """An administrator's API key."""
    team_key: str
    """A key of the team: it sees the IngestJobs of its namespace as its own jobs."""
    other_key: str
    """The same of another team."""

    @property
    def mcp_url(self) -> str:
        """Reached from the host by the cluster's routes."""
        return f"http://{self.shield.mcp_address}:8000/mcp"

    @property
    def api_url(self) -> str:
        """The orchestrator, likewise."""
        return f"http://{self.shield.api_address}:8001"

    @property
    def site(self) -> str:
        """The test site, as pods see it."""
        return f"http://site.{SHIELD}.svc.cluster.local"

    def apply(self, *objects: Mapping[str, Any], namespace: str = TEAM) -> None:
        """Apply as a user would, with the server checking every field."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-n", namespace, "--server-side", "--validate=strict", "-f", "-", input=text)

    def get(self, *arguments: str, namespace: str = TEAM) -> Any:
        """`kubectl get ... -o json`, parsed."""
        return json.loads(self.kubectl("get", "-n", namespace, *arguments, "-o", "json"))

    def wait(self, condition: str, target: str, *, seconds: int = 240, namespace: str = TEAM) -> None:
        """`kubectl wait`; what it waited for is shown when it did not come."""
        try:
            self.kubectl("wait", "-n", namespace, f"--for=condition={condition}", f"--timeout={seconds}s", target, timeout=seconds + 10)
        except Exception as error:  # whatever made kubectl fail, what the cluster says about the target is the better report
            raise AssertionError(f"{target} is not {condition}:\n{self.told(target, namespace)}") from error

    def volume(self, name: str) -> tuple[Path, str]:
        """A fresh directory of this machine, and the hostPath under which pods find it."""
        seen = status(self.cluster, KindSettings().cluster)
        assert seen.volumes is not None
        directory = Path(seen.volumes) / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory, f"{seen.node_volumes}/{name}"

    def allowed(self, user: str, verb: str, resource: str, namespace: str = TEAM) -> bool:
        """Whether a user may do that there; `resource` is `name[.group][/subresource]`."""
        whole, _, subresource = resource.partition("/")
        name, _, group = whole.partition(".")
        attributes = {"namespace": namespace, "verb": verb, "resource": name, "group": group, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": namespace},
            "spec": {"user": user, "resourceAttributes": attributes},
        }
        said = self.kubectl("create", "-n", namespace, "-f", "-", "-o", "json", input=json.dumps(review))
        return bool(json.loads(said)["status"]["allowed"])

    def row(self, name: str) -> dict[str, Any]:
        """The IngestJob's job as REST shows it to its team."""
        return self.job(self.get("ingestjob", name)["status"]["jobId"])

    def bases(self) -> set[str]:
        """The orchestrator's knowledge bases."""
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = httpx.get(f"{self.api_url}/knowledge-bases", headers=headers, trust_env=False, timeout=30)
        return {item["name"] for item in answer.raise_for_status().json()["knowledge_bases"]}

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as REST shows it to the team."""
        headers = {"Authorization": f"Bearer {self.team_key}"}
        answer = httpx.get(f"{self.api_url}/jobs/{job_id}", headers=headers, trust_env=False, timeout=30)
        return dict(answer.raise_for_status().json())

    def told(self, target: str, namespace: str = TEAM) -> str:
        """What a person would look at."""
        parts = [
            self.kubectl("get", "-n", namespace, target, "-o", "yaml"),
            self.kubectl("get", "-n", namespace, "pods,jobs,events", "-o", "wide"),
            self.kubectl("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=shield-operator", "--tail=40"),
        ]
        return "\n".join(parts)


def ingestjob(name: str, source: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """An IngestJob into `handbook`."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "IngestJob",
        "metadata": {"name": name},
        "spec": {"knowledgeBase": "handbook", "source": dict(source), **spec},  # spec may name another base
    }


def knowledge_base(name: str = "handbook", **spec: Any) -> dict[str, Any]:
    """A KnowledgeBase without graph, which these tests do not look at."""
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": "KnowledgeBase", "metadata": {"name": name}, "spec": {"graph": False, **spec}}


def install(cluster: Cluster) -> Installation:
    """Deploy the services, Shield, CRDs and operator, and make the team's namespace; may be called again."""
    kubectl = cluster.kubectl.run
    names = {image.name: pinned(cluster.addresses.registry, image.name) for image in (OPERATOR, SERVER, TEST_SERVICES)}
    shield = deploy(kubectl, SHIELD, images=names)
    kubectl("apply", "--server-side", "-f", str(MANIFESTS / "crds"))
    for crd in ("ingestjobs", "ingestschedules", "knowledgebases"):
        kubectl("wait", "--for=condition=Established", f"crd/{crd}.{GROUP}", "--timeout=30s")
    key = shield.api_key()
    operator = [_fitted(item, names) for item in yaml.safe_load_all((MANIFESTS / "operator.yaml").read_text(encoding="utf-8"))]
    _send(kubectl, *(item for item in operator if item["kind"] == "Namespace"))
    _send(kubectl, _secret("shield-operator", SYSTEM, {"api-key": key}))
    _send(kubectl, *operator)
    for team in (TEAM, OTHER_TEAM):
        _send(kubectl, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": team, "labels": RESTRICTED}})
        _send(kubectl, _secret("shield-worker", team, worker_secret(kubectl)))
        kubectl("delete", "-n", team, "ingestschedules,ingestjobs", "--all", "--timeout=60s", timeout=70)
    kubectl("rollout", "status", "-n", SYSTEM, "deployment/shield-operator", "--timeout=180s", timeout=190)
    return Installation(cluster, kubectl, shield, key, team_key(shield, TEAM), team_key(shield, OTHER_TEAM))


def pinned(registry: str, name: str) -> str:
    """The image by its digest, so that a cluster that ran an older build of the same version takes the new one."""
    media = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    answer = httpx.head(f"http://{registry}/v2/{name}/manifests/{version()}", headers={"Accept": media}, trust_env=False, timeout=30)
    return f"{registry}/{name}@{answer.raise_for_status().headers['Docker-Content-Digest']}"


def team_key(shield: Deployed, team: str) -> str:
    """A key for people and agents of a namespace: its IngestJobs are their jobs, its knowledge bases are granted."""
    scopes = [word for scope in ("kb:read", "kb:write", "jobs:read") for word in ("--scope", scope)]
    return shield.api_key("--name", team, "--principal", f"k8s:{team}", "--kb", f"{team}--handbook", *scopes)


def worker_secret(kubectl: Kubectl) -> dict[str, str]:
    """What a pod that ingests needs: the services' addresses with credentials, and the way to the test site."""
    secret = json.loads(kubectl("get", "-n", SHIELD, "secret", "shield-services", "-o", "json"))["data"]
    config = json.loads(kubectl("get", "-n", SHIELD, "configmap", "shield-config", "-o", "json"))["data"]
    kept = {name: config[name] for name in ("SHIELD_EGRESS_ALLOW", "SHIELD_CRAWL_PER_HOST_DELAY")}
    return {name: b64decode(value).decode() for name, value in secret.items()} | kept


def conditions(status: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]}


def progressed(installation: Installation, name: str) -> bool:
    """Whether the IngestJob has begun to store documents."""
    progress = installation.get("ingestjob", name).get("status", {}).get("progress", {})
    return bool(progress.get("documents"))


def gone(installation: Installation, *target: str, namespace: str = TEAM) -> None:
    """Wait until there is none."""
    until(
        f"{' '.join(target)} is gone",
        lambda: not installation.kubectl("get", "-n", namespace, *target, "--ignore-not-found", "-o", "name").strip(),
        limit=60,
    )


def _fitted(item: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The generated manifest with this cluster's images, orchestrator and smaller pods."""
    if item["kind"] == "ConfigMap":
        template = yaml.safe_load(item["data"]["pod.yaml"])
        template["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
        item["data"]["pod.yaml"] = yaml.safe_dump(template)
    if item["kind"] != "Deployment":
        return item
    [container] = item["spec"]["template"]["spec"]["containers"]
    container["image"] = names[OPERATOR.name]
    given = {
        "SHIELD_OPERATOR_WORKER_IMAGE": names[SERVER.name],
        "SHIELD_OPERATOR_ORCHESTRATOR_URL": f"http://shield-api.{SHIELD}.svc.cluster.local:8001",
    }
    for variable in container["env"]:
        variable["value"] = given.get(variable["name"], variable.get("value"))
    return item


def _secret(name: str, namespace: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": dict(data)}


def _send(kubectl: Kubectl, *objects: Mapping[str, Any]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=shield-tests", "-f", "-", input=text)
