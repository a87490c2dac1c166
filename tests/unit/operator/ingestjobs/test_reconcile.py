"""The controller of IngestJobs on a cluster in memory: order of writes, crashes after each, strangers, refusals, an orchestrator that is away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from shield_operator.cluster import CLAIMS, EVENTS, INGESTJOBS, JOBS, KNOWLEDGEBASES, PODS, Forbidden, Invalid, Key, Obj, Unavailable
from shield_operator.ingestjobs.job import Pods
from shield_operator.ingestjobs.reconcile import WATCHES, IngestJobs, PredecessorRemains, merge_patch
from shield_operator.metrics import Metrics
from shield_operator.orchestrator import OrchestratorUnavailable, Row
from shield_operator.queue import DONE, Result
from shield_operator.settings import Settings
from shield_operator.watching import Change, Owner
from tests.unit.operator.api_server import ApiServer
from tests.unit.operator.memory_cluster import Died

KEY = Key("team", "crawl")


class Orchestrator:
    """Rows that a test sets; `away` refuses everything."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.cancelled: list[str] = []
        self.calls = 0
        self.away = False

    async def progress(self, uids: Sequence[str]) -> dict[str, Row]:
        self.calls += 1
        if self.away:
            raise OrchestratorUnavailable("away")
        return {uid: self.rows[uid] for uid in uids if uid in self.rows}

    async def cancel(self, uids: Sequence[str]) -> None:
        if self.away:
            raise OrchestratorUnavailable("away")
        self.cancelled += uids


class World:
    """A cluster, an orchestrator, a time, and an operator that can be started anew."""

    def __init__(self, **settings: Any) -> None:
        self.now = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
        self.cluster = ApiServer(self.text)
        self.orchestrator = Orchestrator()
        self.settings = Settings(worker_image="shield:test", row_batch_delay=0.001, **settings)
        self.changes: list[Change] = []
        self.stored: list[Key] = []
        self.metrics = Metrics()
        self.restart()
        self.base()

    def text(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def restart(self) -> None:
        self.cluster._caches.clear()
        self.metrics_before, self.metrics = self.metrics, Metrics()
        caches = {}
        for watch in WATCHES:
            cache = self.cluster.cache(watch.kind, self.heard)
            cache.watch = watch
            caches[watch.kind.plural] = cache
        orchestrator: Any = self.orchestrator
        self.operator = IngestJobs(
            self.settings,
            self.cluster,
            caches,
            orchestrator,
            self.metrics,
            pods=Pods("shield:test"),
            stored=self.stored.append,
            now=lambda: self.now,
        )

    def heard(self, change: Change) -> None:
        self.changes.append(change)
        for key in self.operator.keys_of(change) if hasattr(self, "operator") else ():
            self.operator.queue.add(key)

    def base(self, *, ready: bool = True) -> None:
        conditions = [{"type": "Ready", "status": str(ready), "reason": "Ready", "lastTransitionTime": self.text()}]
        self.cluster.put(
            KNOWLEDGEBASES, {"metadata": {"name": "docs", "namespace": "team"}, "spec": {}, "status": {"conditions": conditions}}
        )

    def ingestjob(self, *, name: str = "crawl", labels: dict[str, str] | None = None, **spec: Any) -> Obj:
        body = {"source": {"web": {"url": "https://docs.example.com/"}}, "knowledgeBase": "docs", **spec}
        return self.cluster.put(INGESTJOBS, {"metadata": {"name": name, "namespace": "team", "labels": labels or {}}, "spec": body})

    def drain(self) -> None:
        """What waits in the queue is done."""
        queue = self.operator.queue
        while (key := queue.take()) or queue._running:
            for running in [key] if key else list(queue._running):
                queue.done(running)

    def row(self, status: str, **parts: Any) -> None:
        self.orchestrator.rows[self.uid] = Row.model_validate({"uid": self.uid, "job_id": "3a0c", "status": status, **parts})

    def job_status(self, name: str = "crawl-1", **status: Any) -> None:
        self.cluster.change(JOBS, name, status=status)

    def job_ends(self, type_: str, reason: str = "") -> None:
        condition = {"type": type_, "status": "True", "reason": reason, "lastTransitionTime": self.text()}
        self.job_status(startTime=self.text(), conditions=[condition])

    async def reconcile(self, key: Key = KEY) -> Result:
        return await self.operator.reconcile(key)

    @property
    def uid(self) -> str:
        uid: str = self.subject["metadata"]["uid"]
        return uid

    @property
    def subject(self) -> Obj:
        return self.cluster.of(INGESTJOBS)["crawl"]

    @property
    def jobs(self) -> dict[str, Obj]:
        return self.cluster.of(JOBS)

    def says(self) -> dict[str, str]:
        return {one["type"]: f"{one['status']} {one['reason']}" for one in self.subject["status"]["conditions"]}

    def told(self) -> list[str]:
        return [event["reason"] for event in self.cluster.of(EVENTS).values()]


@pytest.fixture
def world() -> World:
    return World()


async def test_a_new_ingestjob_costs_three_writes_and_a_second_look_none(world: World) -> None:
    world.ingestjob()
    assert await world.reconcile() == Result(600)
    assert world.cluster.writes == [
        ("create", "jobs", "crawl-1"),
        ("patch", "ingestjobs", "crawl"),
        ("create", "events", world_event(world)),
    ]
    version = world.subject["metadata"]["resourceVersion"]
    await world.reconcile()
    assert world.subject["metadata"]["resourceVersion"] == version
    assert len(world.cluster.writes) == 3
    assert world.jobs["crawl-1"]["metadata"]["ownerReferences"][0]["uid"] == world.uid


def world_event(world: World) -> str:
    return next(iter(world.cluster.of(EVENTS)))


async def test_a_whole_life_is_eight_writes_and_its_end_a_ninth(world: World) -> None:
    world.ingestjob()
    await world.reconcile()
    world.job_status(startTime=world.text(), ready=1)
    await world.reconcile()
    assert world.says()["Complete"] == "False Running"
    world.row("completed", outcome="all", progress={"documents": 3, "percentage": 100.0})
    world.job_ends("Complete")
    assert await world.reconcile() == Result(0)
    assert world.says()["Complete"] == "True Completed"
    assert (world.subject["status"]["jobId"], world.subject["status"]["progress"]["documents"]) == ("3a0c", 3)
    assert world.told() == ["Started", "Running", "Succeeded"]
    await world.reconcile()
    world.now += timedelta(seconds=300)
    await world.reconcile()
    assert (world.jobs, len(world.cluster.writes)) == ({}, 8)
    world.now += timedelta(seconds=86_100)
    assert await world.reconcile() == DONE
    assert world.cluster.of(INGESTJOBS) == {}
    assert len(world.cluster.writes) == 9
    assert world.metrics.registry.get_sample_value("shield_operator_ingestjobs_ended_total", {"outcome": "succeeded"}) == 1


@pytest.mark.parametrize("writes", range(1, 8))
async def test_killed_after_any_write_it_goes_on_where_it_was(world: World, writes: int) -> None:
    world.ingestjob(ttlSecondsAfterFinished=400)
    world.cluster.die_after = writes

    async def settle() -> None:
        for _ in range(3):
            try:
                await world.reconcile()
            except Died:
                world.restart()

    await settle()
    world.job_status(startTime=world.text(), ready=1)
    await settle()
    world.row("failed", error_code="crawl.nothing_found")
    world.job_ends("Failed", "PodFailurePolicy")
    await settle()
    assert world.says()["Failed"] == "True CrawlNothingFound"
    assert [name for verb, kind, name in world.cluster.writes if (verb, kind) == ("create", "jobs")] == ["crawl-1"]
    world.now += timedelta(seconds=300)
    await settle()
    assert world.jobs == {}
    world.now += timedelta(seconds=100)
    await settle()
    assert world.cluster.of(INGESTJOBS) == {}
    assert len(world.told()) == len(set(world.told()))


class TestNames:
    def stray(self, world: World, **owner: Any) -> None:
        references = [{"controller": True, "name": "crawl", "apiVersion": "v1", **owner}] if owner else []
        world.cluster._caches.clear()  # whose labels no watch selects
        world.cluster.put(JOBS, {"metadata": {"name": "crawl-1", "namespace": "team", "ownerReferences": references}, "spec": {}})
        caches = world.operator._jobs, world.operator._children, world.operator._bases
        world.cluster._caches += caches

    async def test_a_strangers_job_stays_and_is_named(self, world: World) -> None:
        self.stray(world, kind="CronJob", uid="other")
        world.ingestjob()
        await world.reconcile()
        assert world.says()["Failed"] == "True JobNameConflict"
        assert "crawl-1" in world.jobs
        await world.reconcile()
        assert "crawl-1" in world.jobs

    async def test_its_own_job_that_no_watch_told_of_is_adopted(self, world: World) -> None:
        world.ingestjob()
        self.stray(world, kind="IngestJob", uid=world.uid)
        await world.reconcile()
        assert world.subject["status"]["jobName"] == "crawl-1"
        assert world.says()["Failed"] == "False NotFailed"

    async def test_a_deleted_namesakes_job_is_waited_for_until_it_is_collected(self, world: World) -> None:
        self.stray(world, kind="IngestJob", uid="an older one")
        world.ingestjob()
        with pytest.raises(PredecessorRemains):
            await world.reconcile()
        world.cluster.remove(JOBS, "crawl-1")
        await world.reconcile()
        assert world.says()["Complete"] == "False Pending"

    async def test_but_not_for_ever(self, world: World) -> None:
        self.stray(world, kind="IngestJob", uid="an older one")
        world.ingestjob()
        world.now += timedelta(seconds=601)
        await world.reconcile()
        assert world.says()["Failed"] == "True JobNameConflict"


class TestRefusals:
    async def test_what_the_api_server_never_takes_is_an_invalid_spec(self, world: World) -> None:
        world.ingestjob()
        world.cluster.refuse = lambda verb, kind, name: Invalid("spec.template: bad") if (verb, kind) == ("create", JOBS) else None
        await world.reconcile()
        assert world.says()["Failed"] == "True InvalidSpec"

    async def test_a_quota_is_told_and_tried_again(self, world: World) -> None:
        world.ingestjob()
        world.cluster.refuse = lambda verb, kind, name: Forbidden("exceeded quota") if (verb, kind) == ("create", JOBS) else None
        assert await world.reconcile() == Result(10)
        complete = next(one for one in world.subject["status"]["conditions"] if one["type"] == "Complete")
        assert "exceeded quota" in complete["message"]
        world.cluster.refuse = lambda verb, kind, name: None
        await world.reconcile()
        assert "crawl-1" in world.jobs

    async def test_an_api_server_that_is_away_leaves_the_key_to_the_queue(self, world: World) -> None:
        world.ingestjob()
        world.cluster.refuse = lambda verb, kind, name: Unavailable("away") if verb == "create" else None
        with pytest.raises(Unavailable):
            await world.reconcile()
        assert "status" not in world.subject

    async def test_an_event_that_is_refused_changes_nothing(self, world: World) -> None:
        world.ingestjob()
        world.cluster.refuse = lambda verb, kind, name: Forbidden("no") if kind == EVENTS else None
        await world.reconcile()
        assert world.says()["Accepted"] == "True Accepted"

    async def test_more_than_the_maximum_is_refused(self, world: World) -> None:
        world.ingestjob(podTemplate={"resources": {"limits": {"memory": "9Gi"}}})
        await world.reconcile()
        assert world.says()["Accepted"] == "False ResourcesAboveMaximum"
        assert world.jobs == {}
        assert world.operator._maxima["memory"] == Decimal(8 * 2**30)


class TestWaiting:
    async def test_a_knowledge_base_that_becomes_ready_brings_the_key_back(self, world: World) -> None:
        world.base(ready=False)
        world.ingestjob()
        await world.reconcile()
        assert world.says()["Accepted"] == "False KnowledgeBaseNotReady"
        world.drain()
        world.base()
        assert KEY in world.operator.queue._wanted
        await world.reconcile()
        assert "crawl-1" in world.jobs

    async def test_a_claim_needs_its_owners_label(self, world: World) -> None:
        world.ingestjob(source={"documents": {"persistentVolumeClaim": {"claimName": "papers"}}})
        await world.reconcile()
        assert world.says()["Accepted"] == "False ClaimNotFound"
        claim = {"metadata": {"name": "papers", "namespace": "team"}, "spec": {}}
        world.cluster.put(CLAIMS, claim)
        await world.reconcile()
        assert world.says()["Accepted"] == "False ClaimNotLabelled"
        world.cluster.put(CLAIMS, {**claim, "metadata": {**claim["metadata"], "labels": {"shield.hx-citadel.io/ingest": "true"}}})
        await world.reconcile()
        assert world.says()["Accepted"] == "True Accepted"

    async def test_a_full_namespace_makes_the_next_wait_until_one_ends(self) -> None:
        world = World(max_concurrent_jobs=1)
        world.ingestjob()
        world.ingestjob(name="other")
        await world.reconcile()
        await world.reconcile(Key("team", "other"))
        assert list(world.jobs) == ["crawl-1"]
        world.drain()
        world.job_ends("Complete")
        assert Key("team", "other") in world.operator.queue._wanted
        await world.reconcile(Key("team", "other"))
        assert list(world.jobs) == ["crawl-1", "other-1"]


class TestRows:
    async def test_a_deleted_ingestjob_ends_its_row_while_this_process_leads(self, world: World) -> None:
        uid = world.ingestjob()["metadata"]["uid"]
        world.operator.canceller.running = True
        world.cluster.remove(INGESTJOBS, "crawl")
        assert await world.reconcile() == DONE
        assert await world.operator.canceller.send()
        assert world.orchestrator.cancelled == [uid]

    async def test_a_failed_one_ends_its_row(self, world: World) -> None:
        world.ingestjob()
        await world.reconcile()
        world.job_ends("Failed", "DeadlineExceeded")
        await world.reconcile()
        await world.operator.canceller.send()
        assert (world.says()["Failed"], world.orchestrator.cancelled) == ("True DeadlineExceeded", [world.uid])

    async def test_an_orchestrator_that_is_away_leaves_conditions_to_the_job_after_a_while(self, world: World) -> None:
        world.ingestjob()
        await world.reconcile()
        world.orchestrator.away = True
        world.job_ends("Failed", "PodFailurePolicy")
        world.cluster.put(PODS, a_pod(exitCode=13))
        assert await world.reconcile() == Result(2)
        assert world.says()["Complete"] == "False Pending"
        world.now += timedelta(seconds=30)
        await world.reconcile()
        assert world.says()["Failed"] == "True AllFailed"

    async def test_progress_is_one_call_for_all_and_a_write_only_for_news(self, world: World) -> None:
        world.ingestjob()
        world.ingestjob(name="other")
        for name in ("crawl", "other"):
            await world.reconcile(Key("team", name))
        world.row("processing", stage="fetching", progress={"pages_fetched": 4})
        await world.operator.follow()
        assert world.orchestrator.calls == 1
        assert world.operator.queue.take() == KEY
        await world.reconcile()
        assert world.subject["status"]["progress"]["pagesFetched"] == 4
        world.drain()
        await world.operator.follow()
        assert KEY not in world.operator.queue._wanted

    async def test_the_first_document_is_measured_once_and_its_base_told_of_each_news(self, world: World) -> None:
        world.ingestjob()
        await world.reconcile()
        for documents, after in ((0, 10), (2, 30), (2, 5), (3, 10)):
            world.now += timedelta(seconds=after)
            world.row("processing", progress={"pages_fetched": after, "documents": documents})
            await world.operator.follow()
            await world.reconcile()
        world.restart()
        world.row("completed", outcome="all", progress={"documents": 3})
        world.job_ends("Complete")
        await world.reconcile()
        sums = [
            metrics.registry.get_sample_value(f"shield_ingestjob_first_document_seconds_{part}")
            for metrics in (world.metrics_before, world.metrics)
            for part in ("count", "sum")
        ]
        assert sums == [1, 40, 0, 0]
        assert world.stored == [Key("team", "docs")] * 3

    async def test_news_beyond_the_most_writes_have_their_turn_at_the_next_look(self) -> None:
        world = World(progress_writes=1)
        for name in ("crawl", "other"):
            uid = world.ingestjob(name=name)["metadata"]["uid"]
            await world.reconcile(Key("team", name))
            world.orchestrator.rows[uid] = Row.model_validate({"uid": uid, "job_id": "j", "status": "processing"})
        world.drain()
        turns = []
        for _ in range(3):
            await world.operator.follow()
            turns.append(sorted(key.name for key in world.operator.queue._wanted))
            world.drain()
        assert turns == [["crawl"], ["other"], []]

    async def test_progress_that_cannot_be_had_changes_nothing(self, world: World) -> None:
        world.ingestjob()
        await world.reconcile()
        world.orchestrator.away = True
        await world.operator.follow()
        assert world.says()["Failed"] == "False NotFailed"


def a_pod(**terminated: Any) -> Obj:
    return {
        "metadata": {"name": "crawl-1-x", "namespace": "team", "labels": {"batch.kubernetes.io/job-name": "crawl-1"}},
        "status": {"containerStatuses": [{"name": "worker", "state": {"terminated": terminated}}]},
    }


async def test_a_pod_that_never_ran_says_why(world: World) -> None:
    world.ingestjob()
    await world.reconcile()
    world.job_status(startTime=world.text())
    pod = a_pod()
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    world.cluster.put(PODS, pod)
    world.now += timedelta(seconds=600)
    await world.reconcile()
    failed = next(one for one in world.subject["status"]["conditions"] if one["type"] == "Failed")
    assert (failed["reason"], "ImagePullBackOff: no such image" in failed["message"]) == ("PendingDeadlineExceeded", True)
    assert world.jobs == {}


async def test_suspend_and_resume_reach_the_job(world: World) -> None:
    world.ingestjob()
    await world.reconcile()
    world.cluster.put(INGESTJOBS, {**world.subject, "spec": {**world.subject["spec"], "suspend": True}})
    await world.reconcile()
    assert (world.jobs["crawl-1"]["spec"]["suspend"], world.says()["Suspended"]) == (True, "True Suspended")
    world.cluster.put(INGESTJOBS, {**world.subject, "spec": {**world.subject["spec"], "suspend": False}})
    await world.reconcile()
    assert (world.jobs["crawl-1"]["spec"]["suspend"], world.says()["Suspended"]) == (False, "False Resumed")


def test_whom_a_change_concerns(world: World) -> None:
    owner = Owner("IngestJob", "crawl", "u")
    assert list(world.operator.keys_of(Change(JOBS, Key("team", "crawl-1"), "j", owner, gone=True))) == [KEY]
    assert list(world.operator.keys_of(Change(JOBS, Key("team", "x"), "j", Owner("CronJob", "x", "u"), gone=False))) == []
    assert list(world.operator.keys_of(Change(PODS, Key("team", "x"), "j", None, gone=False))) == []


def test_a_merge_patch_holds_what_changed_and_nulls_what_went() -> None:
    old = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "f": 3}
    new = {"a": 1, "b": {"c": 5}, "e": [1, 2], "g": {}}
    assert merge_patch(old, new) == {"f": None, "b": {"d": None, "c": 5}, "e": [1, 2], "g": {}}
    assert merge_patch(new, new) == {}
