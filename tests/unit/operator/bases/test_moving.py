"""The controller of KnowledgeBases when a base changes its model: it moves, goes back, waits, and survives being killed."""

from __future__ import annotations

import pytest

from shield_operator.bases.port import NOT_CONFIGURED, Space
from shield_operator.orchestrator import OrchestratorRefused, OrchestratorUnavailable
from tests.unit.operator.bases.library import FOUNDING
from tests.unit.operator.bases.world import AWAY, BGE, NAME, World
from tests.unit.operator.memory_cluster import Died


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
