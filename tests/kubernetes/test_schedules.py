"""IngestSchedules on a real API server: what it takes from us, what it collects, and a real operator that starts a run by the clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kind.control_plane import ControlPlane
from kind.kubectl import KubectlFailed
from kind.waiting import until
from shield_operator.api.ingestschedule import IngestSchedule
from shield_operator.cluster import INGESTJOBS, INGESTSCHEDULES, Key, KubernetesCluster, Obj, configuration
from shield_operator.metrics import Metrics
from shield_operator.queue import WorkQueue
from shield_operator.schedules.decide import run_name
from shield_operator.schedules.reconcile import SCHEDULE_LABEL, ScheduleController, run_body
from shield_operator.watching import Cache, Watch
from tests.kubernetes.operator_process import install_crds, running_operator

NAMESPACE = "schedules"
LATER = datetime.now(UTC).replace(hour=12, minute=0, second=5, microsecond=0) + timedelta(days=1)
NOON = LATER.replace(second=0)


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> ControlPlane:
    install_crds(plane)
    with suppress(KubectlFailed):
        plane.kubectl("create", "namespace", NAMESPACE)
    return plane


def make(api: ControlPlane, name: str, **spec: Any) -> Obj:
    job = {"spec": {"source": {"web": {"url": "https://docs.example.com/"}}, "knowledgeBase": "docs", "suspend": True}}
    body = {
        "apiVersion": INGESTSCHEDULES.api_version,
        "kind": INGESTSCHEDULES.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"schedule": "0 12 * * *", "ingestJobTemplate": job, **spec},
    }
    made: Obj = json.loads(api.kubectl("create", "-o", "json", "-f", "-", input=json.dumps(body)))
    return made


class Operator:
    """The controller on the real API server, with a clock of ours: before each reconcile its caches are what a list says."""

    def __init__(self, cluster: KubernetesCluster) -> None:
        self.cluster = cluster
        self.now = LATER

    async def reconcile(self, name: str) -> None:
        caches = {}
        for kind in (INGESTSCHEDULES, INGESTJOBS):
            caches[kind] = Cache(Watch(kind), lambda change: None)
            async for page in self.cluster.list(kind, NAMESPACE):
                for item in page.items:
                    caches[kind].deliver(item, deleted=False)
        queue: WorkQueue[Key] = WorkQueue("test", Metrics())
        controller = ScheduleController(caches[INGESTSCHEDULES], caches[INGESTJOBS], self.cluster, queue, now=lambda: self.now)
        await controller.reconcile(Key(NAMESPACE, name))


@pytest.fixture
async def operator(api: ControlPlane) -> AsyncIterator[Operator]:
    cluster = KubernetesCluster(await configuration(str(api.kubeconfig), connections=4), timeout=10, list_timeout=10, page=2)
    try:
        yield Operator(cluster)
    finally:
        await cluster.close()


def runs(api: ControlPlane, schedule: str) -> list[str]:
    found = api.get("ingestjobs", "-n", NAMESPACE, "-l", f"{SCHEDULE_LABEL}={schedule}")["items"]
    return [item["metadata"]["name"] for item in found]


def the(api: ControlPlane, name: str) -> Obj:
    found: Obj = api.get("ingestschedule", "-n", NAMESPACE, name)
    return found


async def test_a_run_is_taken_shown_and_collected_with_its_schedule(api: ControlPlane, operator: Operator) -> None:
    make(api, "collected", timeZone="UTC")
    await operator.reconcile("collected")
    assert runs(api, "collected") == [run_name("collected", NOON)]
    status = the(api, "collected")["status"]
    assert status["lastScheduleTime"] == NOON.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert status["nextScheduleTime"] == (NOON + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert [item["name"] for item in status["active"]] == runs(api, "collected")
    events = api.get("events", "-n", NAMESPACE, "--field-selector=involvedObject.name=collected")["items"]
    assert [(event["reason"], event["type"]) for event in events] == [("Started", "Normal")]
    api.kubectl("-n", NAMESPACE, "delete", "ingestschedule", "collected")
    until("the run to be collected", lambda: runs(api, "collected") == [], limit=60)


async def test_reconciled_again_nothing_is_written(api: ControlPlane, operator: Operator) -> None:
    make(api, "quiet")
    await operator.reconcile("quiet")
    await operator.reconcile("quiet")
    version = the(api, "quiet")["metadata"]["resourceVersion"]
    operator.now += timedelta(minutes=1)
    await operator.reconcile("quiet")
    assert the(api, "quiet")["metadata"]["resourceVersion"] == version


async def test_a_crash_between_the_run_and_the_status_makes_no_second_run(api: ControlPlane, operator: Operator) -> None:
    made = make(api, "crashed", concurrencyPolicy="Forbid")
    await operator.cluster.create(INGESTJOBS, NAMESPACE, run_body(made, IngestSchedule.model_validate(made), NOON))
    await operator.reconcile("crashed")
    assert runs(api, "crashed") == [run_name("crashed", NOON)]
    assert the(api, "crashed")["status"]["lastScheduleTime"] == NOON.strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_a_stranger_of_the_runs_name_is_left_alone(api: ControlPlane, operator: Operator) -> None:
    made = make(api, "met")
    body = run_body(made, IngestSchedule.model_validate(made), NOON)
    del body["metadata"]["ownerReferences"]
    stranger = await operator.cluster.create(INGESTJOBS, NAMESPACE, body)
    await operator.reconcile("met")
    (condition,) = the(api, "met")["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "NameConflict")
    after = await operator.cluster.get(INGESTJOBS, NAMESPACE, body["metadata"]["name"])
    assert after["metadata"]["resourceVersion"] == stranger["metadata"]["resourceVersion"]


async def test_replace_stops_the_run_and_starts_the_next(api: ControlPlane, operator: Operator) -> None:
    make(api, "replaced", concurrencyPolicy="Replace")
    await operator.reconcile("replaced")
    operator.now += timedelta(days=1)
    await operator.reconcile("replaced")
    assert runs(api, "replaced") == [run_name("replaced", NOON + timedelta(days=1))]


async def test_history_keeps_what_the_limits_say(api: ControlPlane, operator: Operator) -> None:
    make(api, "kept", failedJobsHistoryLimit=1)
    for day in range(3):
        operator.now = LATER + timedelta(days=day)
        await operator.reconcile("kept")
        name = run_name("kept", NOON + timedelta(days=day))
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": "Failed", "status": "True", "reason": "Test", "lastTransitionTime": at, "message": ""}
        await operator.cluster.patch(
            INGESTJOBS, NAMESPACE, name, {"status": {"conditions": [condition], "completionTime": at}}, subresource="status"
        )
    await operator.reconcile("kept")
    assert len(runs(api, "kept")) == 1


def test_the_operator_starts_a_run_by_the_clock(api: ControlPlane, tmp_path: Path) -> None:
    make(api, "clock", schedule="* * * * *", startingDeadlineSeconds=50)
    log = tmp_path / "operator.log"
    with running_operator(api, NAMESPACE, log):
        until("a run", lambda: runs(api, "clock") != [], limit=120)
        until("its schedule to know it", lambda: "lastScheduleTime" in the(api, "clock").get("status", {}), limit=10)
    assert the(api, "clock")["status"]["lastScheduleTime"]
