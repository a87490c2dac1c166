"""The relay: how many hints are out, which, and what becomes of lost ones. Workers are played by the registry and by claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import text

from shield.errors import ShieldError
from shield.jobs.choice import Out
from shield.jobs.claims import only_chooser
from shield.jobs.model import JobId, Priority, Status, WorkerId
from shield.jobs.registry import WorkerInfo
from shield.jobs.relay import Relay
from shield.jobs.streams import StreamsAway
from tests.integration.jobs.support import ME, a_request, job_settings
from tests.integration.promises.support import Fleet, until
from tests.integration.worker.conftest import Outage, outage

__all__ = ["outage"]


class Board:
    """A publisher that keeps what is published where a test can see it."""

    def __init__(self) -> None:
        self.hints: list[JobId] = []
        self.taken = 0
        self.broken = False

    async def out(self) -> Out:
        return Out(len(self.hints), len(self.hints) - self.taken)

    async def publish(self, hints: Sequence[tuple[JobId, Priority, str | None]]) -> None:
        if self.broken:
            raise StreamsAway
        self.hints += [job for job, _, _ in hints]

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
async def fleet(engine: object, valkey: object) -> Fleet:
    return Fleet(engine, valkey, job_settings(max_running_principal=100))  # type: ignore[arg-type]


@pytest.fixture
async def relay(fleet: Fleet, board: Board) -> AsyncIterator[Relay]:
    """A running relay that publishes to the board."""
    relay = Relay(fleet.engine, board, fleet.settings)
    async with fleet.running(relay):
        yield relay


async def workers(fleet: Fleet, count: int, slots: int = 2, offers: frozenset[str] = frozenset()) -> None:
    for number in range(count):
        await fleet.registry.announce(WorkerInfo(WorkerId(f"w{number}-{'-'.join(offers)}"), slots, offers, "1"))


async def shown(board: Board, count: int) -> list[JobId]:
    """The board once it shows so many hints."""

    async def look() -> list[JobId]:
        return board.hints

    return list(await until(look, lambda hints: len(hints) >= count))


async def looked(fleet: Fleet, relay: Relay, times: int = 3) -> None:
    """Let the relay look a few times more, seen from outside: each regular look puts a parked job back."""
    for _ in range(times):
        job = await fleet.jobs.accept(a_request(needs=("nobody",)))
        claim = await until(partial(fleet.jobs.claim, job.id, ME, frozenset({"nobody"})), bool)  # the relay may be looking at the row
        await fleet.jobs.park(claim)
        await until(lambda id_=job.id: fleet.jobs.get(None, id_), lambda found: not found.parked)  # type: ignore[misc]


class TestHowMany:
    async def test_about_one_hint_a_worker_is_out_and_more_as_they_are_taken(self, fleet: Fleet, board: Board, relay: Relay) -> None:
        await workers(fleet, 3)
        await fleet.many(10)
        hints = await shown(board, 3)
        await looked(fleet, relay)
        assert len(board.hints) == 3
        assert await fleet.jobs.claim_hinted(hints[0], ME) is not None
        board.hints.remove(hints[0])
        await shown(board, 3)
        await looked(fleet, relay)
        assert len(set(board.hints)) == 3

    async def test_without_a_worker_one_is_out_and_stays_alone(self, fleet: Fleet, board: Board, relay: Relay) -> None:
        await fleet.many(3)
        await shown(board, 1)
        await fleet.rows.run("UPDATE jobs SET published_at = now() - interval '1 hour' WHERE published_at IS NOT NULL")
        await looked(fleet, relay)
        assert len(board.hints) == 1  # it lies there unread: nothing was lost

    async def test_a_notified_relay_publishes_at_once(self, fleet: Fleet, board: Board) -> None:
        relay = Relay(fleet.engine, board, job_settings(relay=30))
        async with fleet.running(relay):
            await until(fleet.jobs.stats, lambda _: True)
            await fleet.jobs.accept(a_request())
            relay.notify()
            await shown(board, 1)

    async def test_a_principal_gets_no_more_hints_than_jobs_it_may_run(self, fleet: Fleet, board: Board) -> None:
        fleet = Fleet(fleet.engine, fleet.valkey, job_settings(max_running_principal=2))
        await workers(fleet, 8)
        running = await fleet.jobs.accept(a_request())
        assert await fleet.jobs.claim(running.id, ME) is not None
        await fleet.many(5)
        await fleet.many(1, principal="bob")
        relay = Relay(fleet.engine, board, fleet.settings)
        async with fleet.running(relay):
            await shown(board, 2)
            await looked(fleet, relay)
        assert len(board.hints) == 2


class TestWhich:
    async def test_a_job_with_needs_is_hinted_while_a_worker_that_meets_them_has_a_slot(
        self, fleet: Fleet, board: Board, relay: Relay
    ) -> None:
        await workers(fleet, 4)
        await fleet.many(3, needs="{browser}")
        await looked(fleet, relay)
        assert board.hints == []
        await workers(fleet, 1, slots=2, offers=frozenset({"browser", "ocr"}))
        hints = await shown(board, 2)
        await looked(fleet, relay)
        assert len(board.hints) == 2
        held = await fleet.jobs.claim_hinted(hints[0], WorkerId("w0-" + "-".join(frozenset({"browser", "ocr"}))), frozenset({"browser"}))
        assert held is not None
        board.hints.remove(hints[0])
        for _ in range(3):
            await fleet.jobs.heartbeat(held)
            await looked(fleet, relay, times=1)
        assert len(board.hints) == 1  # the other slot's

    async def test_a_hint_that_was_of_no_use_comes_again_after_a_pause(self, fleet: Fleet, board: Board, relay: Relay) -> None:
        await workers(fleet, 1, offers=frozenset({"browser"}))
        job = await fleet.jobs.accept(a_request(needs=("browser",)))
        assert await shown(board, 1) == [job.id]
        board.hints.clear()
        assert await fleet.jobs.claim_hinted(job.id, ME) is None
        assert await shown(board, 1) == [job.id]

    async def test_what_cannot_be_begun_is_not_hinted(self, fleet: Fleet, board: Board, relay: Relay) -> None:
        await workers(fleet, 9)
        early, late, unwanted, pods = [await fleet.jobs.accept(a_request(runner=r)) for r in ("fleet", "fleet", "fleet", "ingestjob:1")]
        await fleet.rows.run(
            "UPDATE jobs SET available_at = now() + interval '1 hour' * (id = :early)::int, "
            "deadline_at = now() + interval '1 hour' * (CASE WHEN id = :late THEN -1 ELSE 1 END), "
            "cancel_requested_at = CASE WHEN id = :unwanted THEN now() END",
            early=early.id,
            late=late.id,
            unwanted=unwanted.id,
        )
        board.hints.clear()  # of a look that was faster than the update
        await looked(fleet, relay)
        assert not {early.id, late.id, unwanted.id, pods.id} & set(board.hints)

    async def test_a_row_that_somebody_has_locked_keeps_nobody_else_waiting(self, fleet: Fleet, board: Board) -> None:
        stuck, free = await fleet.jobs.accept(a_request()), await fleet.jobs.accept(a_request())
        async with fleet.engine.begin() as connection:
            await connection.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR SHARE"), {"id": stuck.id})
            async with fleet.running(Relay(fleet.engine, board, fleet.settings)):
                assert await shown(board, 1) == [free.id]


class TestLost:
    async def test_a_relay_that_dies_between_commit_and_publication_costs_two_looks(self, fleet: Fleet, board: Board) -> None:
        job = await fleet.jobs.accept(a_request())
        chosen = await fleet.jobs.choose(Out(), regular=True, published_before=0)  # committed, and nothing published
        assert chosen is not None
        assert [candidate.id for candidate in chosen.jobs] == [job.id]
        async with fleet.running(Relay(fleet.engine, board, fleet.settings)):
            assert await shown(board, 1) == [job.id]

    async def test_a_hint_that_was_read_and_not_followed_comes_again_after_a_lease(self, fleet: Fleet, board: Board, relay: Relay) -> None:
        job = await fleet.jobs.accept(a_request())
        await shown(board, 1)
        board.taken = 1  # by a worker that is killed now
        await looked(fleet, relay)
        assert board.hints == [job.id]
        await fleet.rows.shift("published_at", job.id, timedelta(seconds=-3))
        assert await shown(board, 2) == [job.id, job.id]

    @pytest.mark.parametrize("stamp", [None, timedelta(hours=-1)], ids=["no stamp", "an old stamp"])
    async def test_a_job_whose_worker_died_is_hinted(self, fleet: Fleet, board: Board, relay: Relay, stamp: timedelta | None) -> None:
        job = await fleet.jobs.accept(a_request())
        await until(lambda: fleet.jobs.claim(job.id, ME), bool)  # the relay may be looking at the row
        board.hints.clear()
        if stamp is not None:
            await fleet.rows.shift("published_at", job.id, stamp)
        await fleet.rows.lapse(job.id)
        assert await shown(board, 1) == [job.id]

    async def test_two_relays_at_once_publish_each_job_once(self, fleet: Fleet, board: Board) -> None:
        await workers(fleet, 8)
        await fleet.many(8)
        async with fleet.running(*(Relay(fleet.engine, board, fleet.settings) for _ in range(2))) as _:
            await shown(board, 8)
        assert len(set(board.hints)) == len(board.hints) == 8

    async def test_a_paused_relay_gives_way_after_a_heartbeat(self, fleet: Fleet, board: Board) -> None:
        job = await fleet.jobs.accept(a_request())
        async with fleet.engine.connect() as paused:
            assert await only_chooser(paused, job_settings(heartbeat=0.3))
            async with fleet.running(Relay(fleet.engine, board, fleet.settings)):
                assert await shown(board, 1) == [job.id]
            await paused.invalidate()


class TestTrouble:
    async def test_while_redis_is_away_nothing_ends_and_parked_jobs_go_on(self, fleet: Fleet, board: Board, relay: Relay) -> None:
        board.broken = True
        job = await fleet.jobs.accept(a_request())
        await looked(fleet, relay, 2)
        assert board.hints == []
        board.broken = False
        assert await shown(board, 1) == [job.id]

    async def test_a_database_that_was_away_is_asked_again(self, fleet: Fleet, board: Board, relay: Relay, outage: Outage) -> None:
        async with outage():
            relay.notify()
            with pytest.raises(ShieldError):
                await fleet.jobs.stats()
        job = await fleet.jobs.accept(a_request())
        assert await shown(board, 1) == [job.id]

    async def test_it_sweeps_so_that_jobs_end_in_time_without_any_worker(self, fleet: Fleet, relay: Relay) -> None:
        job = await fleet.jobs.accept(a_request())
        await fleet.rows.make_late(job.id)
        ended = await until(lambda: fleet.jobs.get(None, job.id), lambda found: found.status.ended)
        assert (ended.status, ended.error_code) == (Status.FAILED, "job.deadline_exceeded")

    async def test_it_stops_at_once(self, fleet: Fleet, board: Board) -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(Relay(fleet.engine, board, job_settings(relay=60)).run(stop))
        await until(fleet.jobs.stats, lambda _: True)
        stop.set()
        async with asyncio.timeout(2):
            await task
