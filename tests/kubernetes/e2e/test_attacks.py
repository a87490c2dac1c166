"""What an author of IngestJobs may try, by name: refused, or harmless. Authors here may do all that `shield-edit` gives in their namespace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from kind.kubectl import KubectlFailed
from tests.kubernetes.e2e.installation import OTHER_TEAM, TEAM, Installation, ingestjob, knowledge_base


def failed(installation: Installation, name: str, namespace: str = TEAM) -> tuple[str, str]:
    """Reason and message of its end."""
    installation.wait("Failed", f"ingestjob/{name}", namespace=namespace)
    conditions = installation.get("ingestjob", name, namespace=namespace)["status"]["conditions"]
    [found] = [item for item in conditions if item["type"] == "Failed"]
    return found["reason"], found["message"]


def upload(installation: Installation, key: str, content: bytes) -> str:
    """A file of that key's principal; its id."""
    answer = httpx.post(
        f"{installation.api_url}/uploads",
        files={"file": ("report.md", content, "text/markdown")},
        headers={"Authorization": f"Bearer {key}"},
        trust_env=False,
        timeout=30,
    )
    return str(answer.raise_for_status().json()["upload_id"])


def claim(installation: Installation, name: str, *, labelled: bool) -> Path:
    """A PersistentVolumeClaim bound to a directory of this machine, which is returned."""
    directory, inside = installation.volume(name)
    labels = {"shield.hx-citadel.io/ingest": "true"} if labelled else {}
    size = {"storage": "1Gi"}
    volume = {"capacity": size, "accessModes": ["ReadOnlyMany"], "hostPath": {"path": inside}, "persistentVolumeReclaimPolicy": "Retain"}
    asked = {"accessModes": ["ReadOnlyMany"], "resources": {"requests": size}, "storageClassName": "", "volumeName": f"e2e-{name}"}
    installation.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"e2e-{name}"}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "labels": labels}, "spec": asked},
    )
    return directory


def from_claim(name: str, **more: Any) -> dict[str, Any]:
    return {"documents": {"persistentVolumeClaim": {"claimName": name, **more}}}


def test_an_upload_of_the_namespace_is_ingested_and_anothers_is_not_found(installation: Installation) -> None:
    mine = upload(installation, installation.team_key, b"# Lighthouse\n\nThe lighthouse of Alexandria stood on Pharos.\n")
    theirs = upload(installation, installation.other_key, b"# Salaries\n\nNobody else may read what the other team earns.\n")
    installation.apply(ingestjob("upload-mine", {"documents": {"uploadId": mine}}))
    installation.apply(ingestjob("upload-theirs", {"documents": {"uploadId": theirs}}))
    installation.wait("Complete", "ingestjob/upload-mine")
    assert failed(installation, "upload-theirs")[0] == "DocumentUploadNotFound"


@pytest.mark.parametrize("name", ["handbook", "team-a--handbook"])
def test_another_namespaces_knowledge_base_is_not_found_under_any_of_its_names(installation: Installation, name: str) -> None:
    job = f"foreign-{len(name)}"
    source = {"documents": {"urls": [f"{installation.site}/page/1"]}}
    installation.apply(ingestjob(job, source, knowledgeBase=name, pendingDeadlineSeconds=5), namespace=OTHER_TEAM)
    assert failed(installation, job, OTHER_TEAM)[0] == "PendingDeadlineExceeded"
    events = installation.get("ingestjob", job, namespace=OTHER_TEAM)["status"]["conditions"]
    assert {item["type"]: item["reason"] for item in events}["Accepted"] == "KnowledgeBaseNotFound"
    assert installation.get("jobs,pods", namespace=OTHER_TEAM)["items"] == []


def test_a_claim_is_read_only_with_its_owners_consent(installation: Installation) -> None:
    private = claim(installation, "private", labelled=False)
    (private / "secret.md").write_text("# Secret\n\nThis claim was never offered to Shield by its owner.\n", encoding="utf-8")
    installation.apply(ingestjob("claim-private", from_claim("private"), pendingDeadlineSeconds=5))
    assert failed(installation, "claim-private")[0] == "PendingDeadlineExceeded"
    accepted = installation.get("ingestjob", "claim-private")["status"]["conditions"]
    assert {item["type"]: item["reason"] for item in accepted}["Accepted"] == "ClaimNotLabelled"


LINKS = {"order.md": "/etc/shield/order/order.json", "environment.md": "/proc/1/environ", "up.md": "../private/secret.md"}


def test_a_claim_is_ingested_and_its_links_lead_nowhere(installation: Installation) -> None:
    shared = claim(installation, "shared", labelled=True)
    (shared / "tides.md").write_text("# Tides\n\nSpring tides come with the new moon and with the full moon.\n", encoding="utf-8")
    for name, target in LINKS.items():
        (shared / name).symlink_to(target)
    installation.apply(ingestjob("claim-shared", from_claim("shared")))
    installation.wait("Complete", "ingestjob/claim-shared")
    progress = installation.get("ingestjob", "claim-shared")["status"]["progress"]
    assert progress["documents"] == 1


def test_a_path_out_of_a_claim_is_refused_by_the_api_server(installation: Installation) -> None:
    with pytest.raises(KubectlFailed, match="path"):
        installation.apply(ingestjob("claim-out", from_claim("shared", path="../private")))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("volumes", [{"name": "all", "hostPath": {"path": "/"}}]),
        ("env", [{"name": "SHIELD_AUTH_MODE", "value": "none"}]),
        ("securityContext", {"runAsUser": 0}),
        ("serviceAccountName", "default"),
        ("containers", [{"name": "worker", "image": "mine", "command": ["sh"]}]),
    ],
)
def test_what_is_not_offered_is_refused_and_without_validation_dropped(installation: Installation, field: str, value: object) -> None:
    source = {"documents": {"urls": [f"{installation.site}/page/1"]}}
    attack = ingestjob(f"attack-{field.lower()}", source, suspend=True, podTemplate={field: value})
    with pytest.raises(KubectlFailed, match=f"unknown field.*{field}"):
        installation.apply(attack)
    installation.kubectl("apply", "-n", TEAM, "--validate=ignore", "-f", "-", input=json.dumps(attack))
    installation.wait("Suspended", f"ingestjob/attack-{field.lower()}", seconds=30)
    assert field not in installation.get("ingestjob", f"attack-{field.lower()}")["spec"].get("podTemplate", {})
    for job in installation.get("jobs", "-l", f"shield.hx-citadel.io/ingestjob=attack-{field.lower()}")["items"]:
        pod = job["spec"]["template"]["spec"]
        assert (pod["automountServiceAccountToken"], pod.get("serviceAccountName")) == (False, None)
        assert {volume["name"] for volume in pod["volumes"]} == {"order", "tmp", "data"}


def test_the_egress_guard_holds_in_the_pod(installation: Installation) -> None:
    addresses = [
        "http://169.254.169.254/latest/meta-data/",
        "https://kubernetes.default.svc/api",
        f"https://{installation.cluster.addresses.node}/",
    ]
    installation.apply(ingestjob("inside", {"documents": {"urls": addresses}}))
    failed(installation, "inside")
    outcomes = installation.row("inside")["outcomes"]
    assert {outcome["source"]: outcome["code"] for outcome in outcomes} == dict.fromkeys(addresses, "egress.denied")


def test_the_other_team_sees_nothing_of_it(installation: Installation) -> None:
    installation.apply(knowledge_base("theirs"), namespace=OTHER_TEAM)
    installation.wait("Ready", "knowledgebase/theirs", seconds=120, namespace=OTHER_TEAM)
    installation.apply(ingestjob("ours", {"documents": {"urls": [f"{installation.site}/page/4"]}}))
    installation.wait("Complete", "ingestjob/ours")
    job = installation.get("ingestjob", "ours")["status"]["jobId"]
    headers = {"Authorization": f"Bearer {installation.other_key}"}
    with httpx.Client(base_url=installation.api_url, headers=headers, trust_env=False, timeout=30) as client:
        assert client.get(f"/jobs/{job}").status_code == 404
        found = client.post("/lightrag/query", json={"query": "Where does station 4 stand?", "knowledge_base": f"{TEAM}--handbook"})
        assert (found.status_code, found.json()["code"]) == (404, "kb.not_found")


CAN = {
    ("list", "pods"), ("create", "jobs.batch"), ("delete", "jobs.batch"), ("create", "events"), ("get", "persistentvolumeclaims"),
    ("patch", "ingestjobs.shield.hx-citadel.io/status"),
}  # fmt: skip
CANNOT = {
    ("get", "secrets"), ("list", "secrets"), ("get", "configmaps"), ("create", "pods"), ("create", "pods/exec"), ("delete", "pods"),
    ("patch", "ingestjobs.shield.hx-citadel.io"), ("create", "rolebindings.rbac.authorization.k8s.io"), ("create", "serviceaccounts/token"),
    ("impersonate", "users"), ("delete", "knowledgebases.shield.hx-citadel.io"), ("get", "nodes"), ("patch", "deployments.apps"),
}  # fmt: skip


OPERATOR = "system:serviceaccount:shield-system:shield-operator"


def test_the_operators_rights_are_those_it_needs_and_no_secrets(installation: Installation) -> None:
    assert {case for case in CAN | CANNOT if installation.allowed(OPERATOR, *case)} == CAN
