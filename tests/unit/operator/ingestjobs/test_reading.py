"""Reading Jobs and pods as the API server tells them."""

from __future__ import annotations

from typing import Any

import pytest

from shield_operator.cluster import PODS, Obj
from shield_operator.ingestjobs.pods import last_pod, pod_of
from shield_operator.ingestjobs.verdict import reason_of
from shield_operator.ingestjobs.view import child_of, slim_job, subject_of
from tests.unit.operator.api_server import ApiServer
from tests.unit.operator.ingestjobs.builders import NOW, an_ingestjob, text


def a_job(**status: Any) -> Obj:
    return {
        "metadata": {
            "name": "crawl-3", "namespace": "team", "uid": "j", "resourceVersion": "9", "creationTimestamp": text(NOW),
            "labels": {"kueue.x-k8s.io/queue-name": "q"}, "managedFields": [{}],
        },
        "spec": {"suspend": True, "activeDeadlineSeconds": 60, "template": {"spec": {}}},
        "status": status,
    }  # fmt: skip


class TestJobs:
    def test_what_is_kept_of_a_job_is_what_is_read(self) -> None:
        job = a_job(startTime=text(NOW), ready=1, failed=2, conditions=[{"type": "Suspended", "status": "True"}])
        assert child_of(slim_job(job)) == child_of(job)
        assert "template" not in slim_job(job)["spec"]
        child = child_of(job)
        assert (child.number, child.suspended, child.queued, child.deadline, child.ready, child.failed, child.finish) == (
            3,
            True,
            True,
            60,
            1,
            2,
            None,
        )
        assert child.running

    def test_how_it_ended(self) -> None:
        failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m", "lastTransitionTime": text(NOW)}
        finish = child_of(a_job(conditions=[{"type": "FailureTarget", "status": "True"}, failed])).finish
        assert finish is not None
        assert (finish.complete, finish.reason, finish.message, finish.at) == (False, "BackoffLimitExceeded", "m", NOW)

    def test_a_name_without_number_is_number_none(self) -> None:
        assert child_of({**a_job(), "metadata": {**a_job()["metadata"], "name": "odd"}}).number == 0


class TestSubjects:
    def test_a_spec_that_cannot_be_read_says_where(self) -> None:
        subject = subject_of(an_ingestjob(source={"web": {"url": "https://user:hunter2@docs.example.com/"}}))
        assert subject.spec is None
        assert "source.web.url" in subject.problem
        assert "hunter2" not in subject.problem

    def test_a_name_that_is_too_long_is_a_problem(self) -> None:
        assert "metadata.name" in subject_of(an_ingestjob(meta={"name": "x" * 53})).problem


class TestPods:
    @pytest.mark.parametrize(
        ("log", "code"),
        [
            ("{}\nshield: There is no such knowledge base. [kb.unknown]\n  Make it first.\n", "kb.unknown"),
            ("shield: One. [a.b]\nshield: Two. [c.d]", "c.d"),
            ("shield: No such option: --x", ""),
            ("said [kb.unknown]", ""),
            ("", ""),
        ],
    )
    def test_the_error_that_it_printed_last(self, log: str, code: str) -> None:
        ended = {"exitCode": 12, "message": log, "reason": "Error"}
        assert pod_of({"status": {"containerStatuses": [{"name": "worker", "state": {"terminated": ended}}]}}).error_code == code

    def test_out_of_memory_and_why_it_waits(self) -> None:
        ended = {"exitCode": 137, "reason": "OOMKilled"}
        pod = pod_of({"status": {"containerStatuses": [{"name": "worker", "state": {"terminated": ended}}]}})
        assert (pod.exit_code, pod.oom_killed) == (137, True)
        unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
        assert pod_of({"status": {"conditions": [unscheduled]}}).waiting == "Unschedulable: 0/1 nodes"
        assert pod_of({}).waiting == ""

    async def test_the_youngest_counts(self) -> None:
        cluster = ApiServer(lambda: text(NOW))
        assert await last_pod(cluster, "team", "crawl-1") is None
        for name, code in (("a", 1), ("b", 13)):
            state = {"terminated": {"exitCode": code}}
            meta = {"name": name, "namespace": "team", "labels": {"batch.kubernetes.io/job-name": "crawl-1"}}
            cluster.put(PODS, {"metadata": meta, "status": {"containerStatuses": [{"name": "worker", "state": state}]}})
        pod = await last_pod(cluster, "team", "crawl-1")
        assert pod is not None
        assert pod.exit_code == 13


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("robots.delay_too_long", "RobotsDelayTooLong"),
        ("job.deadline_exceeded", "DeadlineExceeded"),
        ("kb.unknown", "KbUnknown"),
        ("9.x", "Failed"),
    ],
)
def test_codes_become_reasons(code: str, reason: str) -> None:
    assert reason_of(code) == reason
