"""The controller of schedules on a cluster in memory: order of writes, crashes after each, strangers, refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shield_operator.cluster import EVENTS, INGESTJOBS, INGESTSCHEDULES, Forbidden, Invalid, Key, Obj, Unavailable
from shield_operator.metrics import Metrics
from shield_operator.queue import DONE, Result, WorkQueue
from shield_operator.schedules.decide import MANY, run_name
from shield_operator.schedules.reconcile import SCHEDULE_LABEL, TIME_ANNOTATION, ScheduleController
from shield_operator.watching import Change, Owner
from tests.unit.operator.memory_cluster import Died, MemoryCluster

KEY = Key("team", "nightly")
SOURCE = {"web": {"url": "https://docs.example.com/"}}


class World:
    """A cluster, a clock, and an operator that can be started anew."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, 0, 20, tzinfo=UTC)
        self.cluster = MemoryCluster(lambda: self.now.strftime("%Y-%m-%dT%H:%M:%SZ"))
        self.restart()

    def restart(self) -> None:
        queue: WorkQueue[Key] = WorkQueue("ingestschedule", Metrics())
        cluster = self.cluster
        self.operator = ScheduleController(
            cluster.cache(INGESTSCHEDULES), cluster.cache(INGESTJOBS), cluster, queue, now=lambda: self.now, refused_pause=7
        )

    def schedule(self, template: Obj | None = None, **spec: Any) -> Obj:
        job = {"spec": {"source": SOURCE, "knowledgeBase": "docs"}, **(template or {})}
        meta = {"name": "nightly", "namespace": "team"}
        return self.cluster.put(
            INGESTSCHEDULES, {"metadata": meta, "spec": {"schedule": "*/10 * * * *", "ingestJobTemplate": job, **spec}, "status": {}}
        )

    def at(self, hour: int, minute: int, second: int = 0) -> World:
        self.now = datetime(2026, 11, 23, hour, minute, second, tzinfo=UTC)
        return self

    async def reconcile(self) -> Result:
        return await self.operator.reconcile(KEY)

    @property
    def runs(self) -> dict[str, Obj]:
        return self.cluster.of(INGESTJOBS)

    @property
    def status(self) -> Obj:
        status: Obj = self.cluster.of(INGESTSCHEDULES)["nightly"]["status"]
        return status

    @property
    def why(self) -> tuple[str, str]:
        (condition,) = self.status["conditions"]
        return condition["status"], condition["reason"]

    def end(self, name: str, kind: str = "Complete") -> None:
        condition = {"type": kind, "status": "True", "reason": "x", "lastTransitionTime": "2026-11-23T12:00:00Z"}
        status = {"conditions": [condition], "completionTime": self.now.strftime("%Y-%m-%dT%H:%M:%SZ")}
        self.cluster.change(INGESTJOBS, name, status=status)


@pytest.fixture
def world() -> World:
    return World()


def named(hour: int, minute: int) -> str:
    return run_name("nightly", datetime(2026, 11, 23, hour, minute, tzinfo=UTC))


async def test_a_run_is_what_the_template_says_and_belongs_to_its_schedule(world: World) -> None:
    labels = {"kueue.x-k8s.io/queue-name": "slow", SCHEDULE_LABEL: "forged"}
    made = world.schedule({"metadata": {"labels": labels, "annotations": {"a": "b"}}}, timeZone="Europe/Berlin")
    await world.at(12, 10).reconcile()
    run = world.runs[named(12, 10)]
    assert run["spec"] == {"source": SOURCE, "knowledgeBase": "docs"}
    assert run["metadata"]["labels"] == {
        "kueue.x-k8s.io/queue-name": "slow",
        "app.kubernetes.io/managed-by": "shield-operator",
        SCHEDULE_LABEL: "nightly",
    }
    assert run["metadata"]["annotations"] == {"a": "b", TIME_ANNOTATION: "2026-11-23T13:10:00+01:00"}
    assert run["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "shield.hx-citadel.io/v1alpha1",
            "kind": "IngestSchedule",
            "name": "nightly",
            "uid": made["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


async def test_the_status_tells_the_last_the_next_and_what_is_going(world: World) -> None:
    world.schedule()
    result = await world.at(12, 10, 3).reconcile()
    assert result == Result(300)
    assert world.status["lastScheduleTime"] == "2026-11-23T12:10:00Z"
    assert world.status["nextScheduleTime"] == "2026-11-23T12:20:00Z"
    assert [run["name"] for run in world.status["active"]] == [named(12, 10)]
    assert world.status["observedGeneration"] == 1
    assert world.cluster.events() == [("Started", f"Created IngestJob {named(12, 10)}.")]
    world.end(named(12, 10))
    assert await world.at(12, 19).reconcile() == Result(60)
    assert world.status["active"] == []
    assert world.status["lastSuccessfulTime"] == "2026-11-23T12:10:03Z"


async def test_reconciling_again_writes_nothing(world: World) -> None:
    world.schedule()
    await world.at(12, 10).reconcile()
    await world.reconcile()
    before = list(world.cluster.writes)
    await world.at(12, 11).reconcile()
    assert world.cluster.writes == before


@pytest.mark.parametrize("policy", ["Allow", "Forbid", "Replace"])
@pytest.mark.parametrize("death", range(1, 7))
async def test_killed_after_any_write_it_goes_on_without_a_second_run(world: World, policy: str, death: int) -> None:
    world.schedule(concurrencyPolicy=policy, failedJobsHistoryLimit=0)
    await world.at(12, 10).reconcile()
    if policy == "Forbid":
        world.end(named(12, 10), "Failed")
    world.cluster.die_after = death
    try:
        await world.at(12, 20).reconcile()
    except Died:
        world.restart()
    world.cluster.die_after = None
    await world.at(12, 21).reconcile()
    await world.reconcile()
    created = [name for verb, plural, name in world.cluster.writes if (verb, plural) == ("create", "ingestjobs")]
    assert created == [named(12, 10), named(12, 20)]
    assert world.status["lastScheduleTime"] == "2026-11-23T12:20:00Z"
    expected = {"Allow": [named(12, 10), named(12, 20)], "Forbid": [named(12, 20)], "Replace": [named(12, 20)]}
    assert sorted(world.runs) == expected[policy]
    assert sorted(run["name"] for run in world.status["active"]) == expected[policy]


async def test_a_run_that_exists_already_and_is_ours_is_taken_for_started(world: World) -> None:
    """Another operator was quicker, between our list and our create."""
    made = world.schedule()
    owner = {"apiVersion": "x/v1", "kind": "IngestSchedule", "name": "nightly", "uid": made["metadata"]["uid"], "controller": True}

    def sneak(verb: str, kind: Any, name: str) -> None:
        if verb == "create" and kind == INGESTJOBS and name not in world.runs:
            world.cluster.put(INGESTJOBS, {"metadata": {"name": name, "namespace": "team", "ownerReferences": [owner]}, "spec": {}})

    world.cluster.refuse = sneak
    await world.at(12, 10).reconcile()
    assert world.status["lastScheduleTime"] == "2026-11-23T12:10:00Z"
    assert world.cluster.events() == []


async def test_a_stranger_with_the_runs_name_is_left_alone_and_said(world: World) -> None:
    world.schedule()
    stranger = world.cluster.put(INGESTJOBS, {"metadata": {"name": named(12, 10), "namespace": "team"}, "spec": {}})
    result = await world.at(12, 10).reconcile()
    assert world.why == ("False", "NameConflict")
    assert "lastScheduleTime" not in world.status
    assert world.runs == {named(12, 10): stranger}
    assert result == Result(300)
    await world.reconcile()
    assert [reason for reason, _ in world.cluster.events()] == ["Failed"]
    await world.at(12, 20).reconcile()
    assert world.why == ("True", "Scheduled")
    assert named(12, 20) in world.runs


@pytest.mark.parametrize("error", [Invalid("spec.source: wrong"), Forbidden("exceeded quota")])
async def test_a_run_that_is_refused_is_said_and_tried_again(world: World, error: Exception) -> None:
    world.schedule()
    world.cluster.refuse = lambda verb, kind, name: error if (verb, kind) == ("create", INGESTJOBS) else None
    assert await world.at(12, 10).reconcile() == Result(7)
    assert world.why == ("False", "RunRefused")
    assert str(error) in world.status["conditions"][0]["message"]
    world.cluster.refuse = lambda verb, kind, name: None
    await world.at(12, 11).reconcile()
    assert world.why == ("True", "Scheduled")
    assert list(world.runs) == [named(12, 10)]


async def test_an_api_server_that_is_away_is_the_queues_business(world: World) -> None:
    world.schedule()
    world.cluster.refuse = lambda verb, kind, name: Unavailable("away") if verb == "list" else None
    with pytest.raises(Unavailable):
        await world.at(12, 10).reconcile()
    assert world.runs == {}


async def test_events_that_are_refused_change_nothing(world: World) -> None:
    world.schedule()
    world.cluster.refuse = lambda verb, kind, name: Forbidden("no") if kind == EVENTS else None
    await world.at(12, 10).reconcile()
    assert world.status["lastScheduleTime"] == "2026-11-23T12:10:00Z"


async def test_a_cache_that_is_late_starts_nothing_twice(world: World) -> None:
    world.schedule()
    schedules, jobs = MemoryCluster(lambda: "2026-11-23T12:00:20Z"), MemoryCluster(lambda: "")
    frozen = schedules.cache(INGESTSCHEDULES)
    frozen.deliver(world.cluster.of(INGESTSCHEDULES)["nightly"], deleted=False)
    await world.at(12, 10).reconcile()
    operator = ScheduleController(frozen, jobs.cache(INGESTJOBS), world.cluster, world.operator.queue, now=lambda: world.now)
    await operator.reconcile(KEY)
    assert list(world.runs) == [named(12, 10)]
    assert [reason for reason, _ in world.cluster.events()] == ["Started"]


async def test_forbid_sees_a_run_that_the_cache_does_not_know_yet(world: World) -> None:
    world.schedule(concurrencyPolicy="Forbid")
    await world.at(12, 10).reconcile()
    blind = MemoryCluster(lambda: "").cache(INGESTJOBS)
    operator = ScheduleController(world.cluster.cache(INGESTSCHEDULES), blind, world.cluster, world.operator.queue, now=lambda: world.now)
    world.at(12, 20)
    await operator.reconcile(KEY)
    assert list(world.runs) == [named(12, 10)]


async def test_history_of_others_is_never_pruned(world: World) -> None:
    world.schedule(failedJobsHistoryLimit=0)
    stranger = {"metadata": {"name": "nightly-29923000", "namespace": "team", "labels": {SCHEDULE_LABEL: "nightly"}}, "spec": {}}
    world.cluster.put(INGESTJOBS, stranger)
    world.end("nightly-29923000", "Failed")
    await world.at(12, 10).reconcile()
    world.end(named(12, 10), "Failed")
    await world.at(12, 11).reconcile()
    assert list(world.runs) == ["nightly-29923000"]


async def test_what_was_missed_is_told(world: World) -> None:
    world.schedule()
    world.now += timedelta(days=30)
    await world.reconcile()
    assert [reason for reason, _ in world.cluster.events()] == ["Started", "Failed"]
    assert str(MANY) in world.cluster.events()[1][1]
    assert len(world.runs) == 1


async def test_a_spec_that_cannot_be_read_says_where(world: World) -> None:
    world.schedule(jitterSeconds=-1)
    assert await world.at(12, 10).reconcile() == DONE
    assert world.why == ("False", "InvalidSpec")
    assert "jitterSeconds" in world.status["conditions"][0]["message"]
    assert world.runs == {}


async def test_suspended_it_sleeps_and_tells_no_event(world: World) -> None:
    world.schedule(suspend=True)
    assert await world.at(12, 10).reconcile() == DONE
    assert (world.why, world.cluster.events()) == (("False", "Suspended"), [])


async def test_gone_or_going_it_does_nothing(world: World) -> None:
    assert await world.reconcile() == DONE
    made = world.schedule()
    made["metadata"]["finalizers"] = ["x"]
    world.cluster.put(INGESTSCHEDULES, made)
    world.cluster.remove(INGESTSCHEDULES, "nightly")
    assert await world.at(12, 10).reconcile() == DONE
    assert world.runs == {}


async def test_deleted_while_the_cache_still_knows_it_starts_nothing(world: World) -> None:
    made = world.schedule()
    frozen = MemoryCluster(lambda: "").cache(INGESTSCHEDULES)
    frozen.deliver(made, deleted=False)
    world.cluster.remove(INGESTSCHEDULES, "nightly")
    operator = ScheduleController(frozen, world.cluster.cache(INGESTJOBS), world.cluster, world.operator.queue, now=lambda: world.now)
    world.at(12, 10)
    assert await operator.reconcile(KEY) == DONE
    assert world.runs == {}


async def test_late_schedules_are_counted_without_being_looked_at_again(world: World) -> None:
    world.schedule()
    await world.at(12, 10).reconcile()
    world.end(named(12, 10), "Failed")
    await world.at(12, 15).reconcile()
    assert world.operator.late() == 0
    assert world.at(12, 20).operator.late() == 1
    await world.reconcile()
    world.end(named(12, 20))
    await world.at(12, 25).reconcile()
    assert world.operator.late() == 0
    assert world.at(12, 40).operator.late() == 1
    world.cluster.remove(INGESTSCHEDULES, "nightly")
    await world.reconcile()
    assert world.operator.late() == 0


def test_changes_lead_to_the_schedule_that_they_concern(world: World) -> None:
    keys = world.operator.keys_of
    assert list(keys(Change(INGESTSCHEDULES, KEY, "u", None, gone=False))) == [KEY]
    run = Key("team", "nightly-1")
    assert list(keys(Change(INGESTJOBS, run, "u", Owner("IngestSchedule", "nightly", "u"), gone=True))) == [KEY]
    assert list(keys(Change(INGESTJOBS, run, "u", Owner("Other", "nightly", "u"), gone=True))) == []
    assert list(keys(Change(INGESTJOBS, run, "u", None, gone=False))) == []
