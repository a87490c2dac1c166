"""Leadership: one at most, whatever happens to clocks, networks and processes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shield_operator.cluster import INGESTJOBS, LEASES, Fenced, Key, NotLeading, Unavailable
from shield_operator.lease import Leadership, LeaseLost, Terms
from tests.unit.operator.api_server import ApiServer
from tests.unit.operator.clock import Clock

LEASE = Key("shield", "operator")


class Election:
    def __init__(self) -> None:
        self.clock = Clock()
        self.cluster = ApiServer(lambda: "2026-01-01T00:00:00Z")

    def candidate(self, name: str, **terms: Any) -> Leadership:
        return Leadership(self.cluster, LEASE, name, Terms(**terms), clock=self.clock)

    @property
    def holder(self) -> str:
        holder: str = self.cluster.of(LEASES)["operator"]["spec"]["holderIdentity"]
        return holder


@pytest.fixture
def election() -> Election:
    return Election()


async def test_the_first_leads_and_the_second_waits(election: Election) -> None:
    one, other = election.candidate("one"), election.candidate("other")
    assert await one._attempt()
    assert not await other._attempt()
    assert (one.leading(), other.leading(), election.holder) == (True, False, "one")


async def test_a_leader_that_renews_stays(election: Election) -> None:
    one, other = election.candidate("one"), election.candidate("other")
    await one._attempt()
    for _ in range(20):
        election.clock.tick(2)
        assert await one._attempt()
        assert not await other._attempt()


async def test_a_silent_leader_stops_before_another_may_take_over(election: Election) -> None:
    one, other = election.candidate("one"), election.candidate("other")
    await one._attempt()
    assert not await other._attempt()
    election.clock.tick(10)
    assert not one.leading()
    assert not await other._attempt()
    election.clock.tick(5)
    assert await other._attempt()
    assert not await one._attempt()
    assert election.cluster.of(LEASES)["operator"]["spec"]["leaseTransitions"] == 1


async def test_a_paused_leader_writes_nothing_when_it_wakes(election: Election) -> None:
    one = election.candidate("one")
    await one._attempt()
    fenced = Fenced(election.cluster, one.leading)
    made = await fenced.create(INGESTJOBS, "team", {"metadata": {"name": "x", "namespace": "team"}})
    election.clock.tick(11)
    for write in (
        fenced.create(INGESTJOBS, "team", {"metadata": {"name": "y", "namespace": "team"}}),
        fenced.patch(INGESTJOBS, "team", "x", {}),
        fenced.replace(INGESTJOBS, "team", "x", made),
        fenced.delete(INGESTJOBS, "team", "x", uid=made["metadata"]["uid"]),
    ):
        with pytest.raises(NotLeading):
            await write
    assert (await fenced.get(INGESTJOBS, "team", "x"))["metadata"]["name"] == "x"
    assert [page async for page in fenced.list(INGESTJOBS)]


async def test_of_two_that_take_at_once_one_leads(election: Election) -> None:
    one, other = election.candidate("one"), election.candidate("other")
    found = election.cluster.get

    async def slow(*where: Any) -> Any:
        answer = await found(*where)
        await asyncio.sleep(0)  # both read before either writes
        return answer

    await election.candidate("old")._attempt()
    await one._attempt()
    await other._attempt()
    election.clock.tick(20)
    election.cluster.get = slow  # type: ignore[method-assign,assignment]
    won = await asyncio.gather(one._attempt(), other._attempt())
    assert sorted(won) == [False, True]


async def test_a_released_lease_is_taken_at_once(election: Election) -> None:
    one, other = election.candidate("one"), election.candidate("other")
    await one._attempt()
    await one.release()
    assert not one.leading()
    assert await other._attempt()
    await one.release()
    assert election.holder == "other"


async def test_a_renewal_that_is_under_way_does_not_keep_a_lease_that_is_given_back(election: Election) -> None:
    one, other = election.candidate("one"), election.candidate("other")
    await one._attempt()
    found = election.cluster.get
    renewed: list[int] = []

    async def between(*where: Any) -> Any:
        answer = await found(*where)
        if not renewed:
            renewed.append(1)
            lease = election.cluster.of(LEASES)["operator"]
            election.cluster.put(LEASES, {**lease, "spec": {**lease["spec"], "renewTime": "later"}})
        return answer

    election.cluster.get = between  # type: ignore[method-assign,assignment]
    await one.release()
    assert not await one._attempt()
    assert (election.holder, await other._attempt()) == ("", True)


async def test_an_api_server_that_is_away_for_a_moment_costs_nothing(election: Election) -> None:
    one = election.candidate("one")
    await one._attempt()
    election.cluster.refuse = lambda verb, kind, name: Unavailable("away")
    election.clock.tick(5)
    assert await one._attempt()
    assert (one.leading(), one.contacted) == (True, False)
    election.clock.tick(5)
    assert not await one._attempt()
    await one.release()


async def test_an_api_server_that_is_away_for_long_stops_writing_and_ends_nothing(election: Election) -> None:
    one = Leadership(election.cluster, LEASE, "one", Terms(duration=0.2, deadline=0.05, retry=0.005))
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    election.cluster.refuse = lambda verb, kind, name: Unavailable("away")
    async with asyncio.timeout(3):
        while one.leading():
            await asyncio.sleep(0.005)
        election.cluster.refuse = lambda verb, kind, name: None
        while not one.leading():
            await asyncio.sleep(0.005)
    assert not keeping.done()
    assert (election.holder, election.cluster.of(LEASES)["operator"]["spec"]["leaseTransitions"]) == ("one", 0)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_keeping_ends_when_somebody_else_has_it(election: Election) -> None:
    one = Leadership(election.cluster, LEASE, "one", Terms(duration=10, deadline=5, retry=0.01))
    await one.acquire()
    lease = election.cluster.of(LEASES)["operator"]
    election.cluster.put(LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": "other"}})
    with pytest.raises(LeaseLost):
        async with asyncio.timeout(3):
            await one.keep()
