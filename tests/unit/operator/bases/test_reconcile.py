"""The controller of KnowledgeBases, on a cluster and a library in memory: what it says, asks for, survives, and never does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shield_operator.api.knowledgebase import DELETE_FINALIZER
from shield_operator.bases.port import NOT_CONFIGURED, TRACES_LEFT, DeletionProof, Space
from shield_operator.bases.reconcile import BaseController
from shield_operator.cluster import INGESTJOBS, KNOWLEDGEBASES, Conflict, Key, Obj
from shield_operator.metrics import Metrics
from shield_operator.orchestrator import OrchestratorRefused, OrchestratorUnavailable
from shield_operator.queue import DONE, Result, WorkQueue
from shield_operator.watching import Change
from tests.unit.operator.bases.library import FOUNDING, Base, Library
from tests.unit.operator.memory_cluster import Died, MemoryCluster

KEY = Key("team", "docs")
NAME = "team--docs"
BGE = Space(model="bge-m3", dim=1024)
AWAY = OrchestratorUnavailable("away")


class World:
    """A cluster, a library, a clock, and an operator that can be started anew."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
        self.cluster = MemoryCluster(lambda: self.now.strftime("%Y-%m-%dT%H:%M:%SZ"))
        self.library = Library(lambda: self.now)
        self.restart()

    def restart(self) -> None:
        queue: WorkQueue[Key] = WorkQueue("knowledgebase", Metrics())
        self.operator = BaseController(
            self.cluster.cache(KNOWLEDGEBASES), self.cluster, self.library, queue, now=lambda: self.now, clock=self._seconds
        )

    def _seconds(self) -> float:
        return self.now.timestamp()

    def base(self, **spec: Any) -> Obj:
        old = self.cluster.of(KNOWLEDGEBASES).get("docs")
        obj = {**old, "spec": spec} if old else {"metadata": {"name": "docs", "namespace": "team"}, "spec": spec}
        return self.cluster.put(KNOWLEDGEBASES, obj)

    def moving(self, space: Space, **spec: Any) -> Obj:
        return self.base(embedding={"model": space.model, "dimension": space.dim}, **spec)

    async def look(self, seconds: float = 30) -> Result:
        self.now += timedelta(seconds=seconds)
        return await self.operator.reconcile(KEY)

    @property
    def obj(self) -> Obj | None:
        return self.cluster.of(KNOWLEDGEBASES).get("docs")

    @property
    def status(self) -> Obj:
        assert self.obj is not None
        status: Obj = self.obj.get("status") or {}
        return status

    def why(self, type_: str) -> tuple[str, str]:
        condition = next(condition for condition in self.status["conditions"] if condition["type"] == type_)
        return condition["status"], condition["reason"]

    @property
    def finalizers(self) -> list[str]:
        assert self.obj is not None
        return list(self.obj["metadata"].get("finalizers") or [])


@pytest.fixture
def world() -> World:
    return World()


class TestABase:
    async def test_it_is_made_and_its_status_tells_what_the_orchestrator_said(self, world: World) -> None:
        world.base(description="Handbooks", graph=False)
        assert await world.look() == Result(30)
        made = world.library.bases[NAME]
        assert (made.owner, made.description, made.graph) == ("k8s:team", "Handbooks", False)
        assert (world.why("Ready"), world.why("Reindexing")) == (("True", "Available"), ("False", "UpToDate"))
        assert world.status["knowledgeBase"] == NAME
        assert world.status["activeEmbedding"] == {"model": "builtin", "dimension": 384}
        assert (world.status["documents"], world.status["chunks"], world.status["observedGeneration"]) == (0, 0, 1)
        assert world.finalizers == []

    async def test_counts_follow_and_a_quiet_base_is_not_written(self, world: World) -> None:
        world.base()
        await world.look()
        before = world.status
        await world.look()
        assert world.status == before
        world.library.bases[NAME].documents = 4
        await world.look()
        assert (world.status["documents"], world.status["chunks"]) == (4, 12)
        assert world.status["lastUpdatedTime"] == "2026-11-23T12:01:30Z"
        await world.look(400)
        assert world.status["lastUpdatedTime"] == "2026-11-23T12:08:10Z"

    async def test_a_base_in_which_nothing_happens_is_looked_at_seldom_until_something_does(self, world: World) -> None:
        world.base()
        assert [await world.look(), await world.look(), await world.look(300)] == [Result(30), Result(300), Result(300)]
        world.library.bases[NAME].documents = 4
        world.operator.active(KEY)
        assert world.operator.queue._due[KEY] < world.operator.queue._clock() + 31
        assert [await world.look(), await world.look()] == [Result(30), Result(300)]

    async def test_a_new_process_leaves_quiet_bases_alone_until_their_time_has_come(self, world: World) -> None:
        world.base()
        await world.look()
        await world.look()
        calls = list(world.library.calls)
        world.restart()
        assert await world.look(70) == Result(200)
        assert world.library.calls == calls
        world.operator.active(KEY)
        assert await world.look(0) == Result(300)
        assert len(world.library.calls) == len(calls) + 1
        world.restart()
        world.base(description="new")
        await world.look(0)
        assert world.library.bases[NAME].description == "new"

    async def test_a_base_that_moves_or_is_not_as_it_should_be_is_looked_at_often(self, world: World) -> None:
        world.base(graph=False)
        await world.look()
        world.moving(BGE, graph=False)
        assert [await world.look(), await world.look()] == [Result(30), Result(30)]
        world.library.bases[NAME].owner = "somebody else"
        assert [await world.look(), await world.look()] == [Result(30), Result(30)]

    async def test_between_two_looks_the_orchestrator_is_left_alone(self, world: World) -> None:
        world.base()
        await world.look()
        calls = list(world.library.calls)
        assert await world.look(10) == Result(20)
        assert world.library.calls == calls
        world.base(description="new")
        await world.look(1)
        assert world.library.bases[NAME].description == "new"

    async def test_an_orchestrator_that_is_away_makes_nothing_untrue(self, world: World) -> None:
        world.base()
        await world.look()
        before = world.status
        world.library.away = AWAY
        with pytest.raises(OrchestratorUnavailable):
            await world.look()
        assert world.status == before
        world.library.away = None
        await world.look(301)
        assert world.status["lastUpdatedTime"] != before["lastUpdatedTime"]

    async def test_one_that_was_never_there_is_said_to_be_unknown(self, world: World) -> None:
        world.base()
        world.library.away = AWAY
        with pytest.raises(OrchestratorUnavailable):
            await world.look()
        assert world.why("Ready") == ("Unknown", "OrchestratorUnavailable")
        assert world.cluster.events() == []

    async def test_no_orchestrator_is_one_that_is_away(self, world: World) -> None:
        world.base()
        operator = BaseController(world.cluster.cache(KNOWLEDGEBASES), world.cluster, None, world.operator.queue)
        with pytest.raises(OrchestratorUnavailable):
            await operator.reconcile(KEY)

    async def test_a_name_that_is_taken_is_said(self, world: World) -> None:
        world.library.bases[NAME] = Base("alice", True, FOUNDING)
        world.base()
        await world.look()
        assert world.why("Ready") == ("False", "NameConflict")
        assert [reason for reason, _ in world.cluster.events()] == ["Failed"]

    async def test_one_whose_deletion_has_not_ended_is_waited_for(self, world: World) -> None:
        world.library.bases[NAME] = Base("k8s:team", True, FOUNDING, deleting=True)
        world.base()
        assert await world.look() == Result(30)
        assert world.why("Ready") == ("False", "Deleting")
        del world.library.bases[NAME]
        await world.look()
        assert world.why("Ready") == ("True", "Available")

    async def test_a_graph_that_differs_is_said(self, world: World) -> None:
        world.library.bases[NAME] = Base("k8s:team", True, FOUNDING)
        world.base(graph=False)
        await world.look()
        assert world.why("Ready") == ("False", "GraphDiffers")

    async def test_a_model_that_is_not_configured_is_said(self, world: World) -> None:
        world.moving(BGE, graph=False)
        world.library.away = OrchestratorUnavailable("status 503", NOT_CONFIGURED)
        assert await world.look() == Result(30)
        assert world.why("Ready") == ("False", "EmbeddingNotConfigured")

    async def test_any_other_refusal_is_said(self, world: World) -> None:
        world.base()
        world.library.away = OrchestratorRefused(403, "auth.forbidden", "no")  # type: ignore[assignment]
        await world.look()
        assert world.why("Ready") == ("False", "Refused")
        assert "auth.forbidden" in world.status["conditions"][0]["message"]

    async def test_a_spec_that_cannot_be_read_says_where(self, world: World) -> None:
        world.base(deletionPolicy="Maybe")
        assert await world.look() == DONE
        assert world.why("Ready") == ("False", "InvalidSpec")
        assert "deletionPolicy" in world.status["conditions"][0]["message"]

    async def test_one_that_is_gone_is_nobodys_business(self, world: World) -> None:
        assert await world.look() == DONE
        assert world.library.calls == []

    def test_only_its_own_changes_matter(self, world: World) -> None:
        assert list(world.operator.keys_of(Change(KNOWLEDGEBASES, KEY, "u", None, gone=False))) == [KEY]
        assert list(world.operator.keys_of(Change(INGESTJOBS, KEY, "u", None, gone=False))) == []


class TestMoving:
    async def begun(self, world: World) -> None:
        world.base()
        await world.look()
        world.moving(BGE)
        await world.look()
        assert (world.why("Reindexing"), world.library.calls.count("reindex")) == (("True", "Running"), 1)

    async def test_a_change_of_the_model_is_a_reindex_and_the_status_tells_the_truth_all_along(self, world: World) -> None:
        await self.begun(world)
        assert world.status["activeEmbedding"]["model"] == "builtin"
        await world.look()
        assert world.why("Reindexing") == ("True", "Running")
        world.library.end()
        await world.look()
        assert world.why("Reindexing") == ("False", "UpToDate")
        assert world.status["activeEmbedding"] == {"model": "bge-m3", "dimension": 1024}
        assert [reason for reason, _ in world.cluster.events()] == ["Started", "Succeeded"]
        await world.look()
        assert world.library.calls.count("reindex") == 1

    async def test_a_base_with_a_graph_begins_with_the_installations_model_and_moves(self, world: World) -> None:
        world.moving(BGE)
        await world.look()
        assert (world.library.bases[NAME].live, world.why("Reindexing")) == (FOUNDING, ("True", "Running"))

    async def test_going_back_is_a_rollback_and_takes_effect_at_once(self, world: World) -> None:
        await self.begun(world)
        world.library.end()
        await world.look()
        world.moving(FOUNDING)
        await world.look()
        assert world.library.calls.count("rollback") == 1
        assert (world.status["activeEmbedding"]["model"], world.why("Reindexing")) == ("builtin", ("False", "UpToDate"))

    async def test_an_administrators_rollback_stands_until_the_spec_changes(self, world: World) -> None:
        await self.begun(world)
        world.library.end()
        await world.look()
        world.library.flip(NAME, FOUNDING)
        for _ in range(3):
            await world.look()
            assert world.why("Reindexing") == ("False", "Overridden")
        assert world.status["activeEmbedding"]["model"] == "builtin"
        world.moving(BGE, description="again")
        await world.look()
        assert (world.library.bases[NAME].live, world.library.calls.count("rollback")) == (BGE, 1)

    async def test_answers_that_differ_wait_for_a_decision_and_discarding_is_one(self, world: World) -> None:
        await self.begun(world)
        world.library.end("failed", "kb.reindex_differs")
        world.library.bases[NAME].others[BGE] = "ready"
        await world.look()
        assert world.why("Reindexing") == ("True", "Differs")
        del world.library.bases[NAME].others[BGE]
        for _ in range(3):
            await world.look()
            assert world.why("Reindexing") == ("False", "GivenUp")
        assert world.library.calls.count("reindex") == 1

    async def test_a_move_that_failed_is_tried_again_after_a_pause(self, world: World) -> None:
        await self.begun(world)
        world.library.end("failed", "document.refused")
        await world.look()
        assert world.why("Reindexing") == ("False", "Failed")
        await world.look(500)
        assert world.library.calls.count("reindex") == 1
        await world.look(101)
        assert (world.library.calls.count("reindex"), world.why("Reindexing")) == (2, ("True", "Running"))

    async def test_a_move_that_was_cancelled_is_given_up(self, world: World) -> None:
        await self.begun(world)
        world.library.end("cancelled")
        for _ in range(2):
            await world.look(1000)
            assert world.why("Reindexing") == ("False", "GivenUp")
        assert world.library.calls.count("reindex") == 1

    async def test_another_move_that_is_under_way_is_waited_for(self, world: World) -> None:
        world.base()
        await world.look()
        other = Space(model="other", dim=24)
        await world.library.reindex(NAME, other)
        world.moving(BGE)
        await world.look()
        assert (world.why("Reindexing"), world.library.calls.count("reindex")) == (("True", "Running"), 1)
        world.library.end()
        await world.look()
        assert world.library.calls.count("reindex") == 2

    async def test_a_move_that_is_refused_leaves_the_base_ready(self, world: World) -> None:
        world.base()
        await world.look()
        world.moving(BGE)
        world.library.away_from = "reindex"
        world.library.away = OrchestratorUnavailable("status 503", NOT_CONFIGURED)
        await world.look()
        assert (world.why("Ready"), world.why("Reindexing")) == (("True", "Available"), ("False", "EmbeddingNotConfigured"))
        world.library.away = OrchestratorRefused(409, "kb.reindex_refused", "no")  # type: ignore[assignment]
        await world.look()
        assert world.why("Reindexing") == ("False", "Refused")
        world.library.away = AWAY
        with pytest.raises(OrchestratorUnavailable):
            await world.look()
        world.library.away = None
        await world.look()
        assert world.why("Reindexing") == ("True", "Running")

    @pytest.mark.parametrize("death", [1, 2, 3])
    async def test_killed_while_it_asks_it_goes_on_with_the_job_that_there_is(self, world: World, death: int) -> None:
        world.base()
        await world.look()
        world.moving(BGE)
        world.cluster.die_after = death
        try:
            await world.look()
        except Died:
            world.restart()
        await world.look()
        await world.look()
        assert world.library.calls.count("reindex") == 1
        assert world.why("Reindexing") == ("True", "Running")


class TestDeletion:
    async def made(self, world: World, policy: str = "Delete") -> None:
        world.base(deletionPolicy=policy)
        await world.look()
        world.library.bases[NAME].documents = 3
        self.deleted_at = world.now
        world.cluster.remove(KNOWLEDGEBASES, "docs")

    async def test_the_finalizer_is_there_before_anything_is_stored(self, world: World) -> None:
        world.base(deletionPolicy="Delete")
        world.cluster.die_after = 1
        with pytest.raises(Died):
            await world.look()
        assert (world.finalizers, world.library.bases) == ([DELETE_FINALIZER], {})

    async def test_it_goes_when_the_job_has_proven_that_nothing_is_left(self, world: World) -> None:
        await self.made(world)
        assert await world.look(1) == Result(5)
        assert world.why("Ready") == ("False", "Deleting")
        world.library.begin_deletion(NAME)
        assert await world.look(5) == Result(5)
        assert world.library.calls.count("delete") == 1
        world.library.end()
        assert await world.look(5) == DONE
        assert (world.obj, world.library.bases) == (None, {})

    async def test_retain_deletes_nothing_and_needs_no_finalizer(self, world: World) -> None:
        await self.made(world, "Retain")
        assert await world.look() == DONE
        assert (world.obj, list(world.library.bases), "delete" in world.library.calls) == (None, [NAME], False)

    async def test_the_policy_can_change_both_ways_even_after_the_deletion(self, world: World) -> None:
        world.base(deletionPolicy="Delete")
        await world.look()
        world.base(deletionPolicy="Retain")
        await world.look()
        assert world.finalizers == []
        world.base(deletionPolicy="Delete")
        await world.look()
        assert world.finalizers == [DELETE_FINALIZER]
        world.cluster.remove(KNOWLEDGEBASES, "docs")
        world.base(deletionPolicy="Retain")
        await world.look()
        assert (world.obj, list(world.library.bases), "delete" in world.library.calls) == (None, [NAME], False)

    async def test_finalizers_of_others_stay(self, world: World) -> None:
        made = world.base(deletionPolicy="Delete")
        made["metadata"]["finalizers"] = ["example.com/other"]
        world.cluster.put(KNOWLEDGEBASES, made)
        await world.look()
        assert world.finalizers == ["example.com/other", DELETE_FINALIZER]
        world.base(deletionPolicy="Retain")
        await world.look()
        assert world.finalizers == ["example.com/other"]

    async def test_finalizers_that_changed_meanwhile_are_not_overwritten(self, world: World) -> None:
        made = world.base(deletionPolicy="Delete")
        late = MemoryCluster(lambda: "").cache(KNOWLEDGEBASES)
        late.deliver(made, deleted=False)
        made["metadata"]["finalizers"] = ["example.com/other"]
        world.cluster.put(KNOWLEDGEBASES, made)
        operator = BaseController(late, world.cluster, world.library, world.operator.queue)
        with pytest.raises(Conflict):
            await operator.reconcile(KEY)
        assert world.library.bases == {}

    async def test_an_orchestrator_that_is_away_keeps_the_object(self, world: World) -> None:
        await self.made(world)
        world.library.away = AWAY
        with pytest.raises(OrchestratorUnavailable):
            await world.look()
        assert world.why("Ready") == ("False", "OrchestratorUnavailable")
        assert world.finalizers == [DELETE_FINALIZER]
        world.library.away = None
        await world.look()
        world.library.end()
        await world.look()
        assert world.obj is None

    @pytest.mark.parametrize("death", [1, 2, 3])
    async def test_killed_after_any_write_it_deletes_once(self, world: World, death: int) -> None:
        await self.made(world)
        world.cluster.die_after = death
        try:
            await world.look(1)
            world.library.end()
            await world.look(1)
        except Died:
            world.restart()
            if world.library.all_jobs and not world.library.all_jobs[-1].ended:
                world.library.end()
            await world.look(1)
        assert (world.obj, world.library.bases, world.library.calls.count("delete")) == (None, {}, 1)

    async def test_a_base_that_is_somebody_elses_is_left_alone(self, world: World) -> None:
        await self.made(world)
        world.library.bases[NAME] = Base("alice", True, FOUNDING, documents=9)
        assert await world.look() == DONE
        assert (world.obj, world.library.bases[NAME].documents) == (None, 9)

    async def test_an_older_deletion_proves_nothing(self, world: World) -> None:
        await world.library.ensure("team", NAME, description="", graph=True, embedding=None)
        await world.library.delete(NAME)
        world.library.end()
        await self.made(world)
        await world.look(1)
        assert (world.library.calls.count("delete"), world.obj is not None) == (2, True)
        world.library.end()
        await world.look(1)
        assert (world.obj, world.library.bases) == (None, {})

    async def test_one_that_failed_is_tried_again_after_a_pause(self, world: World) -> None:
        await self.made(world)
        await world.look(1)
        world.library.end("failed", "job.retries_exhausted")
        await world.look(1)
        assert world.why("Ready") == ("False", "DeletionFailed")
        assert "retry" not in world.library.calls
        await world.look(601)
        assert world.library.calls.count("retry") == 1
        await world.look(5)
        assert world.library.calls.count("retry") == 1
        world.library.end()
        await world.look(5)
        assert world.obj is None

    async def test_traces_that_were_found_keep_the_object_for_a_person(self, world: World) -> None:
        await self.made(world)
        await world.look(1)
        world.library.end("failed", TRACES_LEFT)
        del world.library.bases[NAME]
        for _ in range(3):
            await world.look(1000)
            assert world.why("Ready") == ("False", "DeletionUnproven")
        assert "retry" not in world.library.calls
        assert [reason for reason, _ in world.cluster.events()][-1] == "Failed"

    async def test_a_job_that_completed_with_traces_in_its_proof_has_proven_nothing(self, world: World) -> None:
        await self.made(world)
        await world.look(1)
        world.library.end()
        world.library.all_jobs[-1] = world.library.all_jobs[-1].model_copy(update={"proof": DeletionProof(hits=2)})
        await world.look(1)
        assert world.why("Ready") == ("False", "DeletionUnproven")

    async def test_a_deletion_by_somebody_else_is_waited_for_and_then_proven(self, world: World) -> None:
        await self.made(world)
        world.library.begin_deletion(NAME)
        await world.look(1)
        assert world.why("Ready") == ("False", "Deleting")
        del world.library.bases[NAME]
        await world.look(1)
        world.library.end()
        await world.look(1)
        assert world.obj is None

    async def test_a_refusal_keeps_the_object(self, world: World) -> None:
        await self.made(world)
        world.library.away_from = "delete"
        world.library.away = OrchestratorRefused(403, "auth.forbidden", "no")  # type: ignore[assignment]
        assert await world.look(1) == Result(5)
        assert world.why("Ready") == ("False", "DeletionFailed")

    async def test_a_spec_that_cannot_be_read_can_still_be_deleted(self, world: World) -> None:
        await self.made(world)
        world.base(deletionPolicy="Delete", graph="yes")
        await world.look(1)
        world.library.end()
        await world.look(1)
        assert world.obj is None
