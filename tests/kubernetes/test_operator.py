"""IngestJobs on a real API server with the operator as a process: creation, pauses, strangers, deletion, two replicas, nothing written twice.

No node runs here: what a kubelet and the Job controller would say of pods is written into the Job's status by hand.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kind.control_plane import ControlPlane
from kind.kubectl import KubectlFailed
from kind.waiting import until
from shield_operator.cluster import INGESTJOBS, KNOWLEDGEBASES, Obj
from tests.fleet import Fleet
from tests.kubernetes.operator_process import install_crds, running_operator

QUICK = {"progress_interval": "0.5", "sweep_interval": "1", "recheck": "1", "job_retention": "1", "resync": "5", "backoff_most": "2"}
ELECTION = {"lease_duration": "4", "renew_deadline": "2", "retry_period": "0.5", "request_timeout": "2"}
LIMIT = 60.0


class Ingest:
    """What people do and see."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        """A namespace with a KnowledgeBase `docs`."""
        self.plane = plane
        self.namespace = namespace
        install_crds(plane)
        with suppress(KubectlFailed):
            plane.kubectl("create", "namespace", namespace)
        self.kubectl(
            "apply", "-f", "-", body={"apiVersion": KNOWLEDGEBASES.api_version, "kind": "KnowledgeBase", "metadata": {"name": "docs"}}
        )

    def kubectl(self, *arguments: str, body: Any = None) -> str:
        given = None if body is None else json.dumps(body)
        return self.plane.kubectl("-n", self.namespace, *arguments, input=given)

    def create(self, name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> None:
        self.kubectl("create", "-f", "-", body=an_ingestjob(name, labels=labels, **spec))

    def one(self, plural: str, name: str) -> Obj | None:
        found = json.loads(self.kubectl("get", plural, "-o", "json"))["items"]
        return next((item for item in found if item["metadata"]["name"] == name), None)

    def jobs_of(self, name: str) -> list[Obj]:
        found = json.loads(self.kubectl("get", "jobs", "-l", f"shield.hx-citadel.io/ingestjob={name}", "-o", "json"))["items"]
        return sorted(found, key=lambda job: str(job["metadata"]["name"]))

    def says(self, name: str, type_: str) -> tuple[str, str]:
        conditions = ((self.one("ingestjobs", name) or {}).get("status") or {}).get("conditions") or ()
        return next(((each["status"], each["reason"]) for each in conditions if each["type"] == type_), ("", ""))

    def until_it_says(self, name: str, type_: str, status: str, reason: str) -> None:
        self.until(f"{name} says {type_}={status} {reason}", lambda: self.says(name, type_) == (status, reason))

    def until(self, what: str, ready: Callable[[], bool], limit: float = LIMIT) -> None:
        until(what, ready, limit=limit, pause=0.1)

    def job_status(self, job: str, **status: Any) -> None:
        self.kubectl("patch", "job", job, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    def job_fails(self, job: str, reason: str) -> None:
        """As the Job controller says it: a Job that failed has no active pods left and has started."""
        found = self.one("jobs", job) or {}
        started = found["status"].get("startTime") or found["metadata"]["creationTimestamp"]
        at = {"status": "True", "reason": reason, "lastProbeTime": started, "lastTransitionTime": started}
        conditions = [{"type": "FailureTarget", **at}, {"type": "Failed", **at}]
        self.job_status(job, startTime=started, active=0, ready=0, terminating=0, conditions=conditions)


def an_ingestjob(name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> Obj:
    body = {"source": {"web": {"url": "https://docs.example.com/"}}, "knowledgeBase": "docs", **spec}
    meta = {"name": name, "labels": labels or {}}
    return {"apiVersion": INGESTJOBS.api_version, "kind": INGESTJOBS.kind, "metadata": meta, "spec": body}


@pytest.fixture(scope="module")
def orchestrator() -> Iterator[Fleet]:
    fleet = Fleet(workers=0, mcp=False)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def operator(plane: ControlPlane, orchestrator: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    ingest = Ingest(plane, "ingest")
    log = tmp_path_factory.mktemp("operator") / "log"
    with running_operator(plane, ingest.namespace, log, orchestrator_url=orchestrator.api_url, **QUICK, **ELECTION):
        ingest.until("the knowledge base is ready", lambda: base_is_ready(ingest))
        yield ingest


def base_is_ready(ingest: Ingest) -> bool:
    conditions = ((ingest.one("knowledgebases", "docs") or {}).get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


class TestCreation:
    def test_an_ingestjob_becomes_a_job_within_a_second(self, operator: Ingest) -> None:
        operator.create("fast")
        operator.until("its Job", lambda: bool(operator.jobs_of("fast")))
        (job,) = operator.jobs_of("fast")
        subject = operator.one("ingestjobs", "fast") or {}
        made, asked = (datetime.fromisoformat(each["metadata"]["creationTimestamp"]) for each in (job, subject))
        assert made - asked <= timedelta(seconds=1)
        assert job["metadata"]["ownerReferences"][0]["uid"] == subject["metadata"]["uid"]
        operator.until_it_says("fast", "Complete", "False", "Pending")
        operator.until("its Event", lambda: "Started" in operator.kubectl("events", "--for=ingestjob/fast"))

    def test_the_job_is_what_the_api_server_takes_with_everything_set(self, operator: Ingest) -> None:
        pod = {
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "affinity": {
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}
            },
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}},
        }
        operator.create("full", podTemplate=pod, strict=True, metadata={"k": "v"}, budgetTokens=1000)
        operator.until("its Job", lambda: bool(operator.jobs_of("full")))
        template = operator.jobs_of("full")[0]["spec"]["template"]
        assert template["metadata"]["labels"]["team"] == "a"
        order = json.loads(template["metadata"]["annotations"]["shield.hx-citadel.io/order"])
        assert (order["principal"], order["knowledge_base"]) == ("k8s:ingest", "ingest--docs")

    def test_reconciled_again_and_again_nothing_is_written(self, operator: Ingest) -> None:
        operator.create("quiet")
        operator.until_it_says("quiet", "Complete", "False", "Pending")
        before = operator.one("ingestjobs", "quiet") or {}
        for number in range(3):  # each a reason to look at it
            operator.kubectl("annotate", "jobs", "quiet-1", f"look={number}", "--overwrite")
        time.sleep(0.5)  # for something that must not happen there is nothing to wait for
        after = operator.one("ingestjobs", "quiet") or {}
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]

    def test_a_missing_knowledge_base_is_named(self, operator: Ingest) -> None:
        operator.create("lost", knowledgeBase="nowhere")
        operator.until_it_says("lost", "Accepted", "False", "KnowledgeBaseNotFound")
        assert operator.jobs_of("lost") == []

    def test_a_strangers_job_is_a_conflict_and_stays_as_it_was(self, operator: Ingest) -> None:
        container = {"name": "c", "image": "none"}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "taken-1"},
            "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        }
        operator.kubectl("create", "-f", "-", body=job)
        operator.create("taken")
        operator.until_it_says("taken", "Failed", "True", "JobNameConflict")
        assert (operator.one("jobs", "taken-1") or {})["metadata"].get("ownerReferences") is None


class TestLife:
    def test_suspend_and_resume_reach_the_job(self, operator: Ingest) -> None:
        operator.create("paused")
        operator.until("its Job", lambda: bool(operator.jobs_of("paused")))
        operator.kubectl("patch", "ingestjob", "paused", "--type=merge", "-p", '{"spec":{"suspend":true}}')
        operator.until_it_says("paused", "Suspended", "True", "Suspended")
        assert operator.jobs_of("paused")[0]["spec"]["suspend"] is True
        operator.kubectl("patch", "ingestjob", "paused", "--type=merge", "-p", '{"spec":{"suspend":false}}')
        operator.until_it_says("paused", "Suspended", "False", "Resumed")
        assert operator.jobs_of("paused")[0]["spec"]["suspend"] is False

    def test_a_job_that_is_deleted_by_hand_is_followed_by_the_next(self, operator: Ingest) -> None:
        operator.create("again")
        operator.until("its Job", lambda: bool(operator.jobs_of("again")))
        operator.kubectl("delete", "job", "again-1")
        operator.until("the next Job", lambda: [job["metadata"]["name"] for job in operator.jobs_of("again")] == ["again-2"])

    def test_kueue_finds_its_labels_and_a_suspended_job(self, operator: Ingest) -> None:
        operator.create("queued", labels={"kueue.x-k8s.io/queue-name": "team"})
        operator.until_it_says("queued", "Suspended", "True", "QueuedByKueue")
        (job,) = operator.jobs_of("queued")
        assert (job["spec"]["suspend"], job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]) == (True, "team")

    def test_a_changed_deadline_reaches_the_job(self, operator: Ingest) -> None:
        operator.create("longer")
        operator.until("its Job", lambda: bool(operator.jobs_of("longer")))
        operator.kubectl("patch", "ingestjob", "longer", "--type=merge", "-p", '{"spec":{"activeDeadlineSeconds":7200}}')
        operator.until("the Job's deadline", lambda: operator.jobs_of("longer")[0]["spec"]["activeDeadlineSeconds"] == 7200)

    def test_it_fails_is_tidied_up_and_goes_after_its_ttl(self, operator: Ingest) -> None:
        operator.create("failing", ttlSecondsAfterFinished=4)
        operator.until("its Job", lambda: bool(operator.jobs_of("failing")))
        operator.job_fails("failing-1", "BackoffLimitExceeded")
        operator.until_it_says("failing", "Failed", "True", "RetriesExhausted")
        operator.kubectl("wait", "--for=condition=Failed", "ingestjob/failing", "--timeout=10s")
        operator.until("its Job is gone", lambda: operator.jobs_of("failing") == [])
        operator.until("itself is gone", lambda: operator.one("ingestjobs", "failing") is None)

    def test_no_pod_in_time_ends_it(self, operator: Ingest) -> None:
        operator.create("stuck", pendingDeadlineSeconds=1)
        operator.until_it_says("stuck", "Failed", "True", "PendingDeadlineExceeded")
        operator.until("its Job is gone", lambda: operator.jobs_of("stuck") == [])

    def test_its_children_go_with_it(self, operator: Ingest) -> None:
        operator.create("gone")
        operator.until("its Job", lambda: bool(operator.jobs_of("gone")))
        operator.kubectl("delete", "ingestjob", "gone")
        operator.until("its Job is gone", lambda: operator.jobs_of("gone") == [])


class TestReplicas:
    def test_one_leads_the_other_takes_over_at_once_after_sigterm_and_in_time_after_sigkill(
        self, plane: ControlPlane, orchestrator: Fleet, tmp_path: Path
    ) -> None:
        ingest = Ingest(plane, "elected")
        with ExitStack() as stack:
            settings = {**QUICK, **ELECTION, "orchestrator_url": orchestrator.api_url}
            replicas = {
                name: stack.enter_context(running_operator(plane, ingest.namespace, tmp_path / name, identity=name, **settings))
                for name in ("one", "two", "three")
            }
            first = self.leader(ingest, replicas)
            ingest.until("the knowledge base is ready", lambda: base_is_ready(ingest))
            ingest.create("led-1")
            ingest.until("a Job", lambda: bool(ingest.jobs_of("led-1")))
            replicas[first].terminate()
            before = time.monotonic()
            assert replicas[first].wait(20) == 0, (tmp_path / first).read_text()
            assert time.monotonic() - before < 10
            del replicas[first]
            second = self.leader(ingest, replicas)
            ingest.create("led-2")
            replicas[second].kill()
            del replicas[second]
            third = self.leader(ingest, replicas)
            assert third not in {first, second}
            ingest.create("led-3")
            for name in ("led-1", "led-2", "led-3"):
                ingest.until(f"the Job of {name}", lambda name=name: len(ingest.jobs_of(name)) == 1)  # type: ignore[misc]
                ingest.until_it_says(name, "Complete", "False", "Pending")

    def leader(self, ingest: Ingest, replicas: dict[str, Any]) -> str:
        def holder() -> str:
            lease = ingest.one("leases", "shield-operator") or {}
            return str((lease.get("spec") or {}).get("holderIdentity") or "")

        ingest.until("a leader", lambda: holder() in replicas)
        return holder()
