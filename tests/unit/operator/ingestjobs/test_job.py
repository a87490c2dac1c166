"""The child Job: what it holds, what nobody can take from it, and what it may cost."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shield.app.run_job import Order
from shield_operator.api.pods import PodTemplate
from shield_operator.cluster import Obj
from shield_operator.ingestjobs.job import Pods, excess, job_for, read_template
from shield_operator.settings import ConfigurationError
from tests.unit.operator.ingestjobs.builders import UID, a_subject

PODS = Pods("shield:1")
CLAIM = {"documents": {"persistentVolumeClaim": {"claimName": "papers", "path": "2026", "include": ["**/*.pdf"]}}}


def the_job(number: int = 1, pods: Pods = PODS, **parts: Any) -> Obj:
    subject = a_subject(**parts)
    assert subject.spec is not None, subject.problem
    return job_for(subject, subject.spec, number, pods)


def the_pod(**parts: Any) -> Obj:
    pod: Obj = the_job(**parts)["spec"]["template"]
    return pod


def the_order(**parts: Any) -> Obj:
    order: Obj = json.loads(the_pod(**parts)["metadata"]["annotations"]["shield.hx-citadel.io/order"])
    return order


class TestJob:
    def test_its_frame(self) -> None:
        job = the_job(2)
        meta, spec = job["metadata"], job["spec"]
        assert (meta["name"], meta["namespace"]) == ("crawl-2", "team")
        assert meta["labels"] == {
            "app.kubernetes.io/managed-by": "shield-operator", "shield.hx-citadel.io/ingestjob": "crawl", "shield.hx-citadel.io/attempt": "2",
        }  # fmt: skip
        assert meta["ownerReferences"] == [
            {
                "apiVersion": "shield.hx-citadel.io/v1alpha1", "kind": "IngestJob", "name": "crawl", "uid": UID, "controller": True,
                "blockOwnerDeletion": True,
            }
        ]  # fmt: skip
        assert {name: spec[name] for name in ("backoffLimit", "activeDeadlineSeconds", "podReplacementPolicy", "parallelism", "suspend")} == {
            "backoffLimit": 3, "activeDeadlineSeconds": 3600, "podReplacementPolicy": "Failed", "parallelism": 1, "suspend": False,
        }  # fmt: skip
        assert "ttlSecondsAfterFinished" not in spec

    def test_disruptions_and_handing_back_cost_nothing_and_final_codes_end_it(self) -> None:
        rules = the_job()["spec"]["podFailurePolicy"]["rules"]
        assert [rule["action"] for rule in rules] == ["Ignore", "FailJob", "Ignore"]
        assert rules[0]["onPodConditions"][0]["type"] == "DisruptionTarget"
        assert rules[1]["onExitCodes"]["values"] == [2, 10, 11, 12, 13, 14]
        assert rules[2]["onExitCodes"]["values"] == [143]

    def test_a_strict_one_fails_on_partial_success(self) -> None:
        assert the_job(strict=True)["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"][-1] == 20
        assert the_pod(strict=True)["spec"]["containers"][0]["args"][-1] == "--strict"

    def test_kueues_labels_come_along_and_it_begins_suspended(self) -> None:
        job = the_job(labels={"kueue.x-k8s.io/queue-name": "q", "kueue.x-k8s.io/priority-class": "high", "other": "x"})
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
        assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "high"
        assert ("other" in job["metadata"]["labels"], job["spec"]["suspend"]) == (False, True)
        assert "kueue.x-k8s.io/queue-name" not in job["spec"]["template"]["metadata"]["labels"]

    def test_the_same_ingestjob_gives_the_same_job(self) -> None:
        assert the_job() == the_job()


class TestPod:
    def test_it_meets_the_restricted_standard(self) -> None:
        pod = the_pod()["spec"]
        container = pod["containers"][0]
        assert pod["securityContext"] == {
            "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001, "fsGroupChangePolicy": "OnRootMismatch", "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "privileged": False, "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        }  # fmt: skip
        assert (pod["automountServiceAccountToken"], pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == (False, "Never", 70)
        assert [volume["name"] for volume in pod["volumes"]] == ["order", "tmp", "data"]
        assert container["resources"]["requests"]

    def test_the_order_is_projected_from_an_annotation(self) -> None:
        pod = the_pod()["spec"]
        (item,) = pod["volumes"][0]["downwardAPI"]["items"]
        assert item["fieldRef"]["fieldPath"] == "metadata.annotations['shield.hx-citadel.io/order']"
        assert pod["containers"][0]["args"] == ["run-job", "--spec", f"/etc/shield/order/{item['path']}"]

    def test_the_images_entry_point_stays_process_one(self) -> None:
        template: Obj = {"spec": {"containers": [{"name": "worker", "command": ["sh"], "args": ["-c", "true"]}]}}
        assert "command" not in the_pod(pods=Pods("shield:1", template))["spec"]["containers"][0]

    def test_probes_reach_it_and_its_data_directory_is_its_own(self) -> None:
        env = {item["name"]: item.get("value") for item in the_pod()["spec"]["containers"][0]["env"]}
        assert (env["SHIELD_HOST"], env["SHIELD_METRICS_PORT"], env["SHIELD_DATA_DIR"]) == ("0.0.0.0", "9090", "/var/lib/shield/data")

    def test_a_claim_is_mounted_read_only_in_both_places(self) -> None:
        pod = the_pod(source=CLAIM)["spec"]
        assert pod["volumes"][-1] == {"name": "source", "persistentVolumeClaim": {"claimName": "papers", "readOnly": True}}
        assert pod["containers"][0]["volumeMounts"][-1] == {"name": "source", "mountPath": "/source", "readOnly": True}
        assert {"name": "SHIELD_DOCUMENT_ROOT", "value": "/source"} in pod["containers"][0]["env"]

    def test_nothing_that_the_template_says_loosens_it(self) -> None:
        template: Obj = {
            "metadata": {"labels": {"shield.hx-citadel.io/ingestjob": "other"}, "annotations": {"shield.hx-citadel.io/order": "{}"}},
            "spec": {
                "automountServiceAccountToken": True, "restartPolicy": "Always",
                "securityContext": {"runAsUser": 2000, "runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}},
                "volumes": [{"name": "data", "hostPath": {"path": "/"}}, {"name": "extra", "emptyDir": {}}],
                "containers": [
                    {
                        "name": "worker", "image": "other", "command": ["sh"], "args": ["-c"], "env": [{"name": "A", "value": "b"}],
                        "envFrom": [{"secretRef": {"name": "db"}}],
                        "securityContext": {"privileged": True, "runAsNonRoot": False, "capabilities": {"add": ["SYS_ADMIN"]}},
                        "resources": {"limits": {"memory": "1Gi"}},
                        "volumeMounts": [{"name": "extra", "mountPath": "/tmp"}, {"name": "extra", "mountPath": "/extra"}],
                    },
                    {"name": "sidecar", "image": "s"},
                ],
            },
        }  # fmt: skip
        pod = the_pod(pods=Pods("shield:1", template))
        spec, container = pod["spec"], pod["spec"]["containers"][0]
        assert pod["metadata"]["labels"]["shield.hx-citadel.io/ingestjob"] == "crawl"
        assert json.loads(pod["metadata"]["annotations"]["shield.hx-citadel.io/order"])["uid"] == UID
        assert (spec["automountServiceAccountToken"], spec["restartPolicy"]) == (False, "Never")
        assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsNonRoot"]) == (2000, True)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert (container["securityContext"]["privileged"], container["image"], container["args"][0]) == (False, "shield:1", "run-job")
        assert [volume["name"] for volume in spec["volumes"]] == ["extra", "order", "tmp", "data"]
        assert "hostPath" not in json.dumps(spec["volumes"])
        assert {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}["/tmp"] == "tmp"
        assert container["envFrom"] == [{"secretRef": {"name": "db"}}]
        assert container["resources"]["limits"] == {"memory": "1Gi"}
        assert [one["name"] for one in spec["containers"]] == ["worker", "sidecar"]
        assert template["spec"]["containers"][0]["image"] == "other"  # the template itself stays as it is

    def test_the_authors_choices_come_beneath_the_platforms(self) -> None:
        base = {"metadata": {"labels": {"a": "platform"}}, "spec": {"nodeSelector": {"pool": "ingest"}, "tolerations": [{"key": "x"}]}}
        chosen = {
            "metadata": {"labels": {"a": "author", "b": "author"}}, "nodeSelector": {"pool": "other", "disk": "ssd"},
            "tolerations": [{"key": "y", "operator": "Exists"}], "priorityClassName": "low",
            "resources": {"limits": {"memory": "2Gi"}},
        }  # fmt: skip
        pod = the_pod(pods=Pods("shield:1", base), podTemplate=chosen)
        assert (pod["metadata"]["labels"]["a"], pod["metadata"]["labels"]["b"]) == ("platform", "author")
        assert pod["spec"]["nodeSelector"] == {"pool": "ingest", "disk": "ssd"}
        assert [one["key"] for one in pod["spec"]["tolerations"]] == ["x", "y"]
        assert (pod["spec"]["priorityClassName"], pod["spec"]["containers"][0]["resources"]["limits"]["memory"]) == ("low", "2Gi")


class TestOrder:
    def test_of_a_site(self) -> None:
        web = {"url": "https://docs.example.com/", "maxPages": 7, "include": ["/docs/**"], "acceptCrawlDelaySeconds": 60, "render": "http"}
        order = the_order(source={"web": web}, metadata={"team": "a"}, budgetTokens=1000, strict=True)
        assert order == {
            "uid": UID, "principal": "k8s:team", "knowledge_base": "team--docs", "budget": {"tokens": 1000}, "strict": True,
            "spec": {
                "type": "crawl", "url": "https://docs.example.com/", "max_pages": 7, "include": ["/docs/**"], "accept_crawl_delay": 60.0,
                "render": "http", "metadata": {"team": "a"},
            },
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("documents", "spec"),
        [
            ({"urls": ["https://a.example.com/x"]}, {"type": "documents", "urls": ["https://a.example.com/x"]}),
            (
                {"uploadId": "6f1c1a52-0000-4000-8000-000000000009"},
                {"type": "documents", "upload_id": "6f1c1a52-0000-4000-8000-000000000009"},
            ),
            (CLAIM["documents"], {"type": "documents", "path": "2026", "source": "pvc:papers/", "include": ["**/*.pdf"]}),
            ({"persistentVolumeClaim": {"claimName": "papers"}}, {"type": "documents", "path": ".", "source": "pvc:papers/"}),
        ],
    )
    def test_of_documents(self, documents: Obj, spec: Obj) -> None:
        assert the_order(source={"documents": documents})["spec"] == spec


@pytest.mark.parametrize(
    "parts",
    [
        {"metadata": {"team": "a"}, "budgetTokens": 1000, "strict": True},
        {"source": {"web": {"url": "https://a.example.com/", "sitemaps": ["auto"], "refresh": True, "acceptCrawlDelaySeconds": 9}}},
        {"source": {"documents": {"urls": ["https://a.example.com/x", "https://b.example.com/y"]}}},
        {"source": {"documents": {"uploadId": "6f1c1a52-0000-4000-8000-000000000009"}}},
        {"source": CLAIM},
        {"source": {"documents": {"persistentVolumeClaim": {"claimName": "papers"}}}},
    ],
)
def test_the_pod_can_read_its_order(parts: Obj) -> None:
    read = Order.model_validate(the_order(**parts))
    assert (read.uid, read.of_namespace) == (UID, True)


MAXIMA = {"cpu": Decimal(4), "memory": Decimal(8 * 2**30), "ephemeral-storage": Decimal(10**9)}


@pytest.mark.parametrize(
    ("resources", "named"),
    [
        ({}, ""),
        ({"requests": {"cpu": "4"}, "limits": {"cpu": 4, "memory": "8192Mi"}}, ""),
        ({"requests": {"cpu": "4001m"}}, "requests.cpu"),
        ({"limits": {"memory": "9G"}}, "limits.memory"),
        ({"limits": {"ephemeral-storage": "2e9"}}, "limits.ephemeral-storage"),
    ],
)
def test_more_than_the_maximum_is_named(resources: Obj, named: str) -> None:
    said = excess(PodTemplate.model_validate({"resources": resources}), MAXIMA)
    assert (named in said, bool(said)) == (True, bool(named))


def test_no_template_asks_for_nothing() -> None:
    assert excess(None, MAXIMA) == ""


class TestTemplateFile:
    def test_it_is_read(self, tmp_path: Path) -> None:
        file = tmp_path / "pod.yaml"
        file.write_text("spec: {containers: [{name: worker}]}")
        assert read_template(file) == {"spec": {"containers": [{"name": "worker"}]}}
        assert read_template(None) == {}

    @pytest.mark.parametrize("content", ["[1]", "kind: Pod", "spec: 1", "a: [", "\tx"])
    def test_what_is_none_is_refused(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "pod.yaml"
        file.write_text(content)
        with pytest.raises(ConfigurationError):
            read_template(file)

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read_template(tmp_path / "no.yaml")


def test_a_job_of_another_subject_differs() -> None:
    subject = a_subject()
    assert subject.spec is not None
    other = replace(subject, meta=subject.meta.model_copy(update={"namespace": "b"}))
    assert json.loads(job_for(other, subject.spec, 1, PODS)["spec"]["template"]["metadata"]["annotations"]["shield.hx-citadel.io/order"])[
        "principal"
    ] == ("k8s:b")
