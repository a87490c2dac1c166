"""The controller of KnowledgeBases when a base is deleted: nothing goes before it is proven that nothing is left."""

from __future__ import annotations

import pytest

from shield_operator.api.knowledgebase import DELETE_FINALIZER
from shield_operator.bases.port import TRACES_LEFT, DeletionProof
from shield_operator.bases.reconcile import BaseController
from shield_operator.cluster import KNOWLEDGEBASES, Conflict
from shield_operator.orchestrator import OrchestratorRefused, OrchestratorUnavailable
from shield_operator.queue import DONE, Result
from tests.unit.operator.bases.library import FOUNDING, Base
from tests.unit.operator.bases.world import AWAY, KEY, NAME, World
from tests.unit.operator.memory_cluster import Died, MemoryCluster


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
