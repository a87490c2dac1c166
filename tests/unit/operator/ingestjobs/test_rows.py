"""Rows: batches, cancellations that arrive, sweeps that cancel nothing that lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from shield_operator.cluster import INGESTJOBS, Unavailable
from shield_operator.ingestjobs.progress import Rows
from shield_operator.ingestjobs.sweep import Canceller, sweep, sweep_for_ever
from shield_operator.metrics import Metrics
from shield_operator.orchestrator import OrchestratorError, OrchestratorUnavailable, Row
from tests.unit.operator.api_server import ApiServer


class Orchestrator:
    def __init__(self) -> None:
        self.away = False
        self.rows: dict[str, Row] = {}
        self.calls: list[list[str]] = []
        self.live: list[list[str]] = []
        self.cancelled: list[str] = []
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.then: Any = None

    async def progress(self, uids: Sequence[str]) -> dict[str, Row]:
        self.calls.append(list(uids))
        if self.away:
            raise OrchestratorUnavailable("away")
        return {uid: self.rows[uid] for uid in uids if uid in self.rows}

    async def cancel(self, uids: Sequence[str]) -> None:
        if self.away:
            raise OrchestratorUnavailable("away")
        await self.answers.wait()
        self.cancelled += uids

    async def active(self, namespaces: Sequence[str] = ()) -> AsyncIterator[list[str]]:
        self.asked = list(namespaces)
        if self.away:
            raise OrchestratorUnavailable("away")
        for page in self.live:
            yield page
        if self.then is not None:
            self.then()


def a_row(uid: str, documents: int = 0) -> Row:
    return Row.model_validate({"uid": uid, "job_id": "j", "status": "processing", "progress": {"documents": documents}})


@pytest.fixture
def there() -> Orchestrator:
    return Orchestrator()


@pytest.fixture
def cluster() -> ApiServer:
    return ApiServer(lambda: "2026-01-01T00:00:00Z")


def rows_of(there: Any) -> Rows:
    return Rows(there, Metrics(), batch_delay=0.001)


def canceller_of(there: Any) -> Canceller:
    return Canceller(there, Metrics(), retry=0.001)


class TestRows:
    async def test_questions_that_come_together_travel_together(self, there: Orchestrator) -> None:
        there.rows = {"a": a_row("a"), "b": a_row("b")}
        rows = rows_of(there)
        answers = await asyncio.gather(rows.fresh("a"), rows.fresh("b"), rows.fresh("a"), rows.fresh("c"))
        assert [row.uid if row else None for row in answers] == ["a", "b", "a", None]
        assert there.calls == [["a", "b", "c"]]
        assert rows.known("a") == a_row("a")

    async def test_one_that_is_away_tells_everybody_who_asked(self, there: Orchestrator) -> None:
        there.away = True
        rows = rows_of(there)
        answers = await asyncio.gather(rows.fresh("a"), rows.fresh("b"), return_exceptions=True)
        assert all(isinstance(answer, OrchestratorUnavailable) for answer in answers)

    async def test_somebody_who_gives_up_disturbs_nobody(self, there: Orchestrator) -> None:
        there.rows = {"a": a_row("a")}
        rows = rows_of(there)
        one, other = asyncio.create_task(rows.fresh("a")), asyncio.create_task(rows.fresh("a"))
        await asyncio.sleep(0)
        one.cancel()
        assert await other == a_row("a")

    async def test_news_are_rows_that_changed_and_ended_ones_are_forgotten(self, there: Orchestrator) -> None:
        rows = rows_of(there)
        there.rows = {"a": a_row("a"), "b": a_row("b")}
        assert await rows.refresh(["a", "b"]) == ["a", "b"]
        there.rows["b"] = a_row("b", documents=1)
        assert await rows.refresh(["a", "b"]) == ["b"]
        assert await rows.refresh(["b"]) == []
        assert (rows.known("a"), rows.known("b")) == (None, a_row("b", documents=1))
        rows.forget("b")
        assert rows.known("b") is None

    async def test_metrics_tell_since_when_nothing_was_heard_and_which_job_has_stood_still_longest(self, there: Orchestrator) -> None:
        metrics, now = Metrics(), 100.0
        rows = Rows(there, metrics, batch_delay=0.001, clock=lambda: now)  # type: ignore[arg-type]

        def shown() -> tuple[float | None, float | None]:
            names = ("shield_operator_progress_age_seconds", "shield_operator_ingestjob_stalled_seconds")
            return tuple(metrics.registry.get_sample_value(name) for name in names)  # type: ignore[return-value]

        there.rows = {"a": a_row("a"), "b": a_row("b")}
        await rows.refresh(["a", "b"])
        now = 160.0
        assert shown() == (60, 60)
        there.rows["a"] = a_row("a").model_copy(update={"updated_at": datetime(2026, 1, 1, tzinfo=UTC)})  # a heartbeat is no progress
        there.rows["b"] = a_row("b", documents=1)
        await rows.refresh(["a", "b"])
        assert shown() == (0, 60)
        await rows.refresh(["b"])
        assert shown() == (0, 0)
        now = 200.0
        await rows.refresh([])  # nothing is active: nobody waits for news
        assert shown() == (0, 0)

    async def test_without_an_orchestrator_nothing_is_known(self) -> None:
        rows = rows_of(None)
        assert (rows.served, await rows.fresh("a"), await rows.refresh(["a"])) == (False, None, [])

    async def test_closing_ends_who_waits(self, there: Orchestrator) -> None:
        rows = Rows(there, Metrics(), batch_delay=60)  # type: ignore[arg-type]
        waiting = asyncio.create_task(rows.fresh("a"))
        await asyncio.sleep(0.001)
        await rows.close()
        with suppress(asyncio.CancelledError):
            await waiting
        assert waiting.cancelled()


class TestCanceller:
    async def test_what_does_not_arrive_is_sent_again_until_it_does(self, there: Orchestrator) -> None:
        there.away = True
        canceller = canceller_of(there)
        running = asyncio.create_task(canceller.run())
        canceller.add("a", "deleted")
        canceller.add("a", "deleted")
        await asyncio.sleep(0.01)
        assert (len(canceller), canceller.running) == (1, True)
        there.away = False
        async with asyncio.timeout(3):
            while len(canceller):
                await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (there.cancelled, canceller.running) == (["a"], False)

    async def test_two_may_send_at_the_same_time(self, there: Orchestrator) -> None:
        canceller = canceller_of(there)
        canceller.add("a", "sweep")
        there.answers.clear()
        both = asyncio.gather(canceller.send(), canceller.send())
        await asyncio.sleep(0)
        there.answers.set()
        assert all(await both)
        assert (len(canceller), there.cancelled) == (0, ["a", "a"])

    async def test_without_an_orchestrator_nothing_is_kept(self) -> None:
        canceller = canceller_of(None)
        canceller.add("a", "deleted")
        assert len(canceller) == 0


class TestSweep:
    def put(self, cluster: ApiServer, name: str, *, ended: bool = False) -> str:
        conditions = [{"type": "Failed", "status": "True"}] if ended else []
        obj = {"metadata": {"name": name, "namespace": "team"}, "spec": {}, "status": {"conditions": conditions}}
        uid: str = cluster.put(INGESTJOBS, obj)["metadata"]["uid"]
        return uid

    async def test_rows_without_a_living_ingestjob_end_and_no_others(self, cluster: ApiServer, there: Orchestrator) -> None:
        alive, ended = self.put(cluster, "alive"), self.put(cluster, "ended", ended=True)
        there.live = [[alive, "gone"], [ended]]
        assert await sweep(cluster, there, canceller_of(there)) == 2  # type: ignore[arg-type]
        assert sorted(there.cancelled) == sorted([ended, "gone"])

    async def test_the_list_is_younger_than_the_rows(self, cluster: ApiServer, there: Orchestrator) -> None:
        """An IngestJob that is made while rows are read is in the list; its row is not cancelled."""
        there.live = [["uid-1"]]
        there.then = lambda: self.put(cluster, "just-made")
        assert await sweep(cluster, there, canceller_of(there)) == 0  # type: ignore[arg-type]

    async def test_of_some_namespaces_rows_and_ingestjobs_are_those_of_these(self, cluster: ApiServer, there: Orchestrator) -> None:
        alive = self.put(cluster, "alive")
        there.live = [[alive, "gone"]]
        assert await sweep(cluster, there, canceller_of(there), namespaces=["team", "other"]) == 1  # type: ignore[arg-type]
        assert (there.asked, there.cancelled) == (["team", "other"], ["gone"])

    async def test_no_list_is_made_if_all_rows_are_known(self, cluster: ApiServer, there: Orchestrator) -> None:
        there.live = [["a"]]
        cluster.refuse = lambda verb, kind, name: Unavailable("away")
        assert await sweep(cluster, there, canceller_of(there), {"a"}) == 0  # type: ignore[arg-type]

    async def test_either_side_away_cancels_nothing(self, cluster: ApiServer, there: Orchestrator) -> None:
        there.live = [["gone"]]
        cluster.refuse = lambda verb, kind, name: Unavailable("away")
        with pytest.raises(Unavailable):
            await sweep(cluster, there, canceller_of(there))  # type: ignore[arg-type]
        there.away = True
        with pytest.raises(OrchestratorError):
            await sweep(cluster, there, canceller_of(there))  # type: ignore[arg-type]
        assert there.cancelled == []

    async def test_it_goes_on_until_it_worked_once_and_then_trusts_what_is_known(self, cluster: ApiServer, there: Orchestrator) -> None:
        there.live, there.away = [["known", "gone"]], True
        canceller = canceller_of(there)
        running = asyncio.create_task(
            sweep_for_ever(cluster, there, canceller, known=lambda: {"known"}, interval=0.001)  # type: ignore[arg-type]
        )
        await asyncio.sleep(0.005)
        there.away = False
        async with asyncio.timeout(3):
            while len(there.cancelled) < 3:
                await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (there.cancelled.count("known"), there.cancelled.count("gone") >= 2) == (1, True)
