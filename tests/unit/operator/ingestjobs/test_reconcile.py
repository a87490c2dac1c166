"""The controller of IngestJobs on a cluster in memory: order of writes, crashes after each, strangers, refusals."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from shield_operator.cluster import EVENTS, INGESTJOBS, JOBS, PODS, Forbidden, Invalid, Key, Unavailable
from shield_operator.ingestjobs.reconcile import PredecessorRemains, merge_patch
from shield_operator.queue import DONE, Result
from shield_operator.watching import Change, Owner
from tests.unit.operator.ingestjobs.world import KEY, World, a_pod
from tests.unit.operator.memory_cluster import Died


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
