"""The operator is away, or there are two; the orchestrator is away."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.kubernetes.api_proxy import KillAfter, Refuse, Rule
from tests.kubernetes.boundaries import checks
from tests.kubernetes.boundaries.recorder import condition
from tests.kubernetes.boundaries.stage import Case, Expected, Stage
from tests.kubernetes.boundaries.world import ROW_PATIENCE

_PROMISE = 60.0
"""Seconds within which the rows of IngestJobs that were deleted meanwhile are cancelled."""
_LEASE = ("leases", "shield-system", "shield-operator")


def cases() -> list[Case]:
    """All of them."""
    return [
        Case("deleted-while-the-operator-is-down", _deleted_meanwhile, alone=True, smoke=True),
        Case("ended-while-the-operator-is-down", _ended_meanwhile, alone=True),
        Case("orchestrator-down", _orchestrator_down, alone=True),
        Case("leader-killed-beside-a-standby", _leader_killed, alone=True, smoke=True),
        Case("leader-cut-off", _leader_cut_off, alone=True),
        Case("leader-paused-past-its-lease", _leader_paused, alone=True),
        Case("lease-taken-by-another", _lease_taken, alone=True),
    ]


async def _deleted_meanwhile(stage: Stage) -> None:
    gone = Expected("", row="cancelled", documents=None, gone=True)
    uids = await stage.submit_held("one", "two", expected=gone)
    replica = stage.world.replica
    await replica.down()
    for name in ("one", "two"):
        await stage.delete("ingestjobs", name)
    await stage.until_stopped("one", "two")
    await asyncio.sleep(2)
    replica.up()
    began = time.monotonic()
    dsn = stage.world.fleet.dsn
    while [await asyncio.to_thread(checks.rows, dsn, uid) for uid in uids] != [[("cancelled", f"ingestjob:{uid}")] for uid in uids]:
        if time.monotonic() > began + _PROMISE:
            raise AssertionError(f"rows of deleted IngestJobs are not cancelled {_PROMISE:.0f} s after the operator came back")
        await asyncio.sleep(0.2)
    stage.notes.append(f"rows cancelled {time.monotonic() - began:.1f} s after the operator was started again")
    await replica.leads()


async def _ended_meanwhile(stage: Stage) -> None:
    await stage.submit_held("one", "two")
    replica = stage.world.replica
    await replica.down(signal.SIGTERM)
    stage.release("one", "two")
    await stage.until_stopped("one", "two")
    replica.up()


async def _orchestrator_down(stage: Stage) -> None:
    """Progress grows old and says so; nothing else is concluded from it."""
    await stage.submit_held("ends", "goes-on")
    for name in ("ends", "goes-on"):
        await stage.until(lambda name=name: bool(stage.story(name).latest.get("status", {}).get("progress")), f"progress of {name}")  # type: ignore[misc]
        await stage.until_condition(name, "Complete", "False", "Running")
    down = stage.rule(Rule(Refuse(), times=0), stage.world.orchestrator)
    before = stage.story("goes-on").latest["status"]
    await stage.until_happened(down, "a call to the orchestrator")
    stage.release("ends")
    await stage.until_condition("ends", "Complete", "True", "Completed")  # its exit code says it, once patience is over
    await asyncio.sleep(ROW_PATIENCE / 2)
    after = stage.story("goes-on").latest["status"]
    if after != before:
        raise AssertionError(f"the orchestrator is away, and the status changed from {before} to {after}")
    stage.world.orchestrator.remove(down)
    stage.release("goes-on")
    await stage.until_condition("goes-on", "Complete", "True", "Completed")
    progress = stage.story("goes-on").latest["status"]["progress"]
    if progress.get("documents") != 3:
        raise AssertionError(f"the orchestrator is back, and the progress is {progress}")


@asynccontextmanager
async def _standby(stage: Stage) -> AsyncIterator[None]:
    """A second replica waits; afterwards `a` alone leads again."""
    world = stage.world
    other = world.replicas["b"]
    other.up()
    await other.waits()
    try:
        yield
    finally:
        for replica in world.replicas.values():
            replica.send(signal.SIGCONT)
        await other.down(signal.SIGTERM)
        world.replica.up()
        await world.replica.leads()


async def _leader_killed(stage: Stage) -> None:
    async with _standby(stage):
        stage.world.replica.wanted = False  # it stays away
        stage.rule(Rule(KillAfter(), "POST", stage.here("jobs$")))
        for name in ("one", "two"):
            await stage.submit(name)
        await stage.world.replicas["b"].leads()
        await stage.submit("three")
        await stage.settle()


async def _leader_cut_off(stage: Stage) -> None:
    """The leader reaches nobody: it stops before the other one begins, and ends when it hears of that."""
    world = stage.world
    async with _standby(stage):
        await stage.submit_held("one")
        ends = len(world.replica.exits)
        world.replica.wanted = False
        cut = world.door.add(Rule(Refuse(), times=0))
        try:
            world.door.cut()
            await stage.submit("two")
            await world.replicas["b"].leads()
            if await world.replica.is_leading():
                raise AssertionError("two replicas say that they lead")
        finally:
            world.door.remove(cut)
        await stage.until(lambda: len(world.replica.exits) > ends, "the leader that was cut off ends")
        stage.release("one")
        await stage.settle()


async def _leader_paused(stage: Stage) -> None:
    """Paused past its lease, it writes nothing when it wakes."""
    world = stage.world
    async with _standby(stage):
        await stage.submit_held("one")
        await world.replica.idle()
        world.replica.wanted = False
        world.replica.send(signal.SIGSTOP)
        await stage.submit("two")
        await world.replicas["b"].leads()
        written = len(world.door.writes)
        ends = len(world.replica.exits)
        stage.release("one")
        world.replica.send(signal.SIGCONT)
        await stage.until(lambda: len(world.replica.exits) > ends, "the leader that was paused ends")
        late = [write for write in world.door.writes[written:] if "/leases/" not in write.path and 200 <= write.status < 300]
        if late:
            raise AssertionError(f"a leader that was paused past its lease wrote {late}")
        await stage.settle()


async def _lease_taken(stage: Stage) -> None:
    """Somebody else holds the Lease all of a sudden: the leader ends at once, and whoever is next waits until that one has gone."""
    world = stage.world
    async with _standby(stage):
        ends = len(world.replica.exits)
        await stage.submit("one")
        lease = await world.api.get(*_LEASE)
        await world.api.patch(*_LEASE, {"spec": {"holderIdentity": "somebody", "renewTime": lease["spec"]["renewTime"]}})
        await stage.until(lambda: len(world.replica.exits) > ends, "the leader that lost its Lease ends")
        await stage.submit("two")
        await stage.settle()
        if condition(stage.story("two").latest, "Complete").get("status") != "True":
            raise AssertionError("nobody leads")
