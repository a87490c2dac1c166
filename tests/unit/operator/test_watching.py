"""Caches: the newest version counts, own writes are seen, owners are known; and watches that fall silent are found out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shield_operator.cluster import INGESTJOBS, JOBS, Expired, Key, Obj, Unavailable
from shield_operator.metrics import Metrics
from shield_operator.watching import Cache, Change, Resync, Watch, WatchIsStale, without_noise
from tests.unit.operator.memory_cluster import MemoryCluster

KEY = Key("team", "x")


def an_object(version: int, *, uid: str = "u", owner: str = "", **parts: Any) -> Obj:
    references = [{"controller": True, "kind": "IngestJob", "name": "crawl", "uid": owner}] if owner else []
    return {
        "metadata": {"name": "x", "namespace": "team", "uid": uid, "resourceVersion": str(version), "ownerReferences": references},
        **parts,
    }


class Known:
    def __init__(self) -> None:
        self.told: list[Change] = []
        self.cache = Cache(Watch(JOBS), self.told.append)

    def version(self) -> str | None:
        obj = self.cache.get(KEY)
        return obj["metadata"]["resourceVersion"] if obj else None


@pytest.fixture
def known() -> Known:
    return Known()


class TestCache:
    def test_newer_wins_whatever_the_order(self, known: Known) -> None:
        known.cache.deliver(an_object(5), deleted=False)
        known.cache.deliver(an_object(4), deleted=False)
        assert (known.version(), len(known.told)) == ("5", 1)

    def test_an_own_write_is_seen_at_once_and_its_echo_tells_nobody(self, known: Known) -> None:
        known.cache.deliver(an_object(5), deleted=False)
        known.cache.wrote(an_object(6, a=1))
        known.cache.deliver(an_object(6, a=1), deleted=False)
        assert (known.version(), len(known.told)) == ("6", 1)

    def test_a_deletion_tells_the_uid_and_the_owner(self, known: Known) -> None:
        known.cache.deliver(an_object(5, owner="o"), deleted=False)
        known.cache.deliver(an_object(6, owner="o"), deleted=True)
        last = known.told[-1]
        assert (last.gone, last.uid, last.owner and last.owner.uid, known.version()) == (True, "u", "o", None)
        assert known.cache.children("o") == []

    def test_an_answer_to_a_write_does_not_bring_back_what_is_gone(self, known: Known) -> None:
        known.cache.deliver(an_object(5), deleted=False)
        known.cache.deliver(an_object(7), deleted=True)
        known.cache.wrote(an_object(6))
        assert known.version() is None

    def test_a_successor_of_the_same_name_is_another_object(self, known: Known) -> None:
        known.cache.deliver(an_object(5, uid="old"), deleted=False)
        known.cache.deliver(an_object(8, uid="new"), deleted=False)
        known.cache.deliver(an_object(7, uid="old"), deleted=True)
        assert [(change.uid, change.gone) for change in known.told] == [("old", False), ("old", True), ("new", False)]
        assert known.version() == "8"

    def test_children_are_found_by_their_owners_uid(self, known: Known) -> None:
        known.cache.wrote(an_object(5, owner="o"), created=True)
        assert [child["metadata"]["name"] for child in known.cache.children("o")] == ["x"]
        known.cache.deliver(an_object(6, owner="p"), deleted=False)
        assert (known.cache.children("o"), len(known.cache.children("p"))) == ([], 1)

    def test_managed_fields_and_the_last_applied_copy_are_not_kept(self) -> None:
        meta = {"name": "x", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"}, "managedFields": [{}]}
        assert without_noise({"metadata": meta, "spec": {}}) == {"metadata": {"name": "x", "annotations": {"a": "b"}}, "spec": {}}

    def test_the_first_moment_of_an_object_is_remembered(self) -> None:
        time = iter([1.0, 2.0, 3.0])
        cache = Cache(Watch(JOBS), lambda change: None, clock=lambda: next(time))
        cache.deliver(an_object(5), deleted=False)
        cache.deliver(an_object(6), deleted=False)
        entry = cache.entry(KEY)
        assert entry is not None
        assert entry.heard == 1.0


class Lists:
    """An API server whose watch a test can hold up."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster(lambda: "2026-01-01T00:00:00Z")
        self.metrics = Metrics()
        self.now = 0.0
        self.cache = self.cluster.cache(INGESTJOBS)

    def add(self, name: str = "x") -> None:
        self.cluster.put(INGESTJOBS, {"metadata": {"name": name, "namespace": "team"}, "spec": {}})

    def silent(self) -> None:
        self.cluster._caches.clear()

    def resync(self, patience: float = 0.05) -> Resync:
        return Resync(self.cluster, [self.cache], self.metrics, namespaces=(), patience=patience, poll=0.002, clock=lambda: self.now)

    def stale(self) -> float | None:
        return self.metrics.registry.get_sample_value("shield_operator_stale_watches_total", {"kind": "ingestjobs"})


@pytest.fixture
def lists() -> Lists:
    return Lists()


class TestResync:
    async def test_caches_that_hold_what_the_list_saw_are_synced(self, lists: Lists) -> None:
        lists.add()
        resync = lists.resync()
        await resync.check()
        assert resync.synced

    async def test_the_age_of_what_was_confirmed_is_shown_and_grows_while_nothing_is(self, lists: Lists) -> None:
        resync = lists.resync()
        lists.now = 300.0
        await resync.check()
        lists.now = 340.0
        assert lists.metrics.registry.get_sample_value("shield_operator_confirmed_age_seconds") == 40
        lists.silent()
        lists.add()
        with pytest.raises(WatchIsStale):
            await resync.check()
        assert lists.metrics.registry.get_sample_value("shield_operator_confirmed_age_seconds") == 40

    async def test_a_change_that_is_not_delivered_in_time_is_a_stale_watch(self, lists: Lists) -> None:
        lists.silent()
        lists.add()
        resync = lists.resync()
        with pytest.raises(WatchIsStale, match="ingestjobs: 1 changes"):
            await resync.check()
        assert (lists.stale(), resync.synced) == (1, False)

    async def test_a_deletion_that_is_not_delivered_is_one_too(self, lists: Lists) -> None:
        lists.add()
        lists.silent()
        lists.cluster.remove(INGESTJOBS, "x")
        with pytest.raises(WatchIsStale):
            await lists.resync().check()

    async def test_our_own_write_does_not_hide_a_silent_watch(self, lists: Lists) -> None:
        lists.add()
        lists.silent()
        written = await lists.cluster.patch(INGESTJOBS, "team", "x", {"status": {"a": 1}}, subresource="status")
        lists.cache.wrote(written)
        with pytest.raises(WatchIsStale):
            await lists.resync().check()

    async def test_what_came_late_is_no_fault(self, lists: Lists) -> None:
        lists.silent()
        lists.add()
        checking = asyncio.create_task(lists.resync(patience=5).check())
        await asyncio.sleep(0.01)
        lists.cache.deliver(lists.cluster.of(INGESTJOBS)["x"], deleted=False)
        async with asyncio.timeout(3):
            await checking

    async def test_what_was_deleted_while_the_watch_began_is_no_fault(self, lists: Lists) -> None:
        lists.silent()
        lists.add()
        checking = asyncio.create_task(lists.resync(patience=5).check())
        await asyncio.sleep(0.01)
        lists.cluster.remove(INGESTJOBS, "x")
        async with asyncio.timeout(3):
            await checking
        assert lists.stale() is None

    async def test_a_job_of_ours_that_was_gone_before_the_answer_is_forgotten(self, lists: Lists) -> None:
        lists.cache.wrote(an_object(1), created=True)
        await lists.resync().check()
        assert lists.cache.get(KEY) is None

    async def test_an_api_server_that_is_away_is_waited_for_and_is_no_stale_watch(self, lists: Lists) -> None:
        answers: list[Exception | None] = [Unavailable("away"), Expired("gone"), None]
        lists.cluster.refuse = lambda verb, kind, name: answers.pop(0) if answers else None
        resync = lists.resync()
        async with asyncio.timeout(3):
            await resync.first(0.001)
        assert (resync.synced, answers, lists.stale()) == (True, [], None)
