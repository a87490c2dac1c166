"""The controller of KnowledgeBases, on a cluster and a library in memory: what it says of a base, and when it looks."""

from __future__ import annotations

import pytest

from shield_operator.bases.port import NOT_CONFIGURED
from shield_operator.bases.reconcile import BaseController
from shield_operator.cluster import INGESTJOBS, KNOWLEDGEBASES
from shield_operator.orchestrator import OrchestratorRefused, OrchestratorUnavailable
from shield_operator.queue import DONE, Result
from shield_operator.watching import Change
from tests.unit.operator.bases.library import FOUNDING, Base
from tests.unit.operator.bases.world import AWAY, BGE, KEY, NAME, World


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
