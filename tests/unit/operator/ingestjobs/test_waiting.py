"""The controller of IngestJobs while it waits for others: a base, a claim, a place, its rows, an orchestrator that is away."""

from __future__ import annotations

from datetime import timedelta

from shield_operator.cluster import CLAIMS, INGESTJOBS, PODS, Key
from shield_operator.orchestrator import Row
from shield_operator.queue import DONE, Result
from tests.unit.operator.ingestjobs.world import KEY, World, a_pod


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
