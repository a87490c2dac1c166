"""What people and nodes do to Jobs and pods; deadlines; every published exit code."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from shield.errors import Exit
from tests.kubernetes.api import path
from tests.kubernetes.boundaries import checks
from tests.kubernetes.boundaries.stage import Case, Expected, Play, Stage, failed
from tests.kubernetes.kubelet import POOL_LABEL, Behaviour

_STRANGER = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "one-1"},
    "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}}},
}
FINAL = {
    Exit.USAGE: "Usage",
    Exit.BAD_SPEC: "BadSpec",
    Exit.AUTH: "Auth",
    Exit.REFUSED: "Refused",
    Exit.ALL_FAILED: "AllFailed",
    Exit.BUDGET: "Budget",
}
"""No other try is made after these; the reason that each becomes."""
RETRIED = {Exit.BUG, Exit.TRANSIENT, Exit.LEASE_LOST, Exit.INTERRUPTED}
"""Each counts as a failed pod."""
UNCOUNTED = {Exit.DRAINED}
PARTIAL = {Exit.PARTIAL}
FINE = {Exit.OK}


def cases() -> list[Case]:
    """All of them."""
    found = [
        Case("job-deleted-by-hand", _job_deleted, smoke=True),
        Case("pod-deleted-by-hand", _pod_deleted),
        Case("strangers-job-of-that-name", _stranger, smoke=True),
        Case("node-drained", _drained),
        Case("pod-evicted-under-pressure", _evicted),
        Case("out-of-memory-once", _oom_once, smoke=True),
        Case("out-of-memory-always", _oom_always),
        Case("suspended-for-a-while", _suspended),
        Case("suspended-from-the-start", _suspended_from_the_start),
        Case("active-deadline", _active_deadline, smoke=True),
        Case("pending-deadline", _pending_deadline),
        Case("ingestjob-deleted-in-the-middle", _deleted),
        Case("rows-left-alone-by-an-idle-fleet", _left_alone, smoke=True),
        *(Case(f"exit-code-{int(code)}", _exits(code), smoke=code is Exit.BAD_SPEC) for code in Exit),
    ]
    return [replace(case, hardy=True) for case in found]


async def _job_deleted(stage: Stage) -> None:
    """`kubectl delete job` leaves the pod its time of grace, and the next Job need not wait for that: the row's lease does."""
    await stage.submit_held("one", "two", expected=Expected(jobs=2, pods=(2,), overlap=True))
    for name in ("one", "two"):
        await stage.delete("jobs", f"{name}-1")
    await stage.reached("one", "two")
    stage.release("one", "two")


async def _pod_deleted(stage: Stage) -> None:
    await stage.submit_held("one", "two", expected=Expected(pods=(2,)))
    for name in ("one", "two"):
        await stage.delete("pods", stage.runs(name)[0].pod)
    await stage.reached("one", "two")
    stage.release("one", "two")


async def _stranger(stage: Stage) -> None:
    """Somebody's Job has the name: it is left alone, and the IngestJob says why it cannot run."""
    api = stage.world.api
    theirs = (await api.create("jobs", stage.namespace, _STRANGER))["metadata"]["uid"]
    await stage.submit("one", failed("JobNameConflict", row=None, documents=0, jobs=0, pods=(0,)))
    await stage.submit("two")
    await stage.until_condition("one", "Failed", "True", "JobNameConflict")
    found = await api.find("jobs", stage.namespace, "one-1")
    if found is None or found["metadata"]["uid"] != theirs or "ownerReferences" in found["metadata"]:
        raise AssertionError(f"the stranger's Job was touched: {found}")


async def _drained(stage: Stage) -> None:
    """`kubectl drain`: cordon, evict; the pod goes on elsewhere, and that is no attempt."""
    where = {
        "nodeSelector": {POOL_LABEL: "drain"},
        "tolerations": [{"key": POOL_LABEL, "operator": "Equal", "value": "drain", "effect": "NoSchedule"}],
    }
    await stage.submit_held("one", expected=Expected(pods=(2,)), podTemplate=where, backoffLimit=0)
    await stage.submit_held("two", expected=Expected(pods=(1, 2)), podTemplate=where, backoffLimit=0)  # on the other node, or on the same
    api, node = stage.world.api, stage.runs("one")[0].node
    await api.patch("nodes", "", node, {"spec": {"unschedulable": True}})
    for pod in await api.list("pods", stage.namespace, fieldSelector=f"spec.nodeName={node}"):
        name = pod["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": stage.namespace}}
        await api.call("POST", path("pods", stage.namespace, name, "eviction"), eviction)
    await stage.reached("one")
    stage.release("one", "two")
    if stage.runs("one")[-1].node == node:
        raise AssertionError(f"a pod went back to the cordoned node {node}")


async def _evicted(stage: Stage) -> None:
    await stage.submit_held("one", "two", expected=Expected(pods=(2,)), backoffLimit=0)
    for name in ("one", "two"):
        stage.world.kubelet.evict(stage.runs(name)[0])
    await stage.reached("one", "two")
    stage.release("one", "two")


async def _oom_once(stage: Stage) -> None:
    await stage.submit_held("one", expected=Expected(pods=(2,)), backoffLimit=1)
    stage.world.kubelet.out_of_memory(stage.runs("one")[0])
    await stage.reached("one")  # after the Job controller's pause, while the fleet is idle
    stage.release("one")


async def _oom_always(stage: Stage) -> None:
    await stage.submit_held("one", expected=failed("RetriesExhausted", pods=(2,)), backoffLimit=1)
    stage.world.kubelet.out_of_memory(stage.runs("one")[0])
    await stage.reached("one")
    stage.world.kubelet.out_of_memory(stage.runs("one")[-1])


async def _suspended(stage: Stage) -> None:
    """Handed back and free to be claimed, for longer than a relay needs: nobody but its pod may."""
    await stage.submit_held("one", "two", expected=Expected(pods=(2,)))
    for name in ("one", "two"):
        await stage.change(name, suspend=True)
    for name in ("one", "two"):
        await stage.until_condition(name, "Suspended", "True", "Suspended")
    await stage.until_stopped("one", "two")
    await asyncio.sleep(3)
    for name in ("one", "two"):
        found = await asyncio.to_thread(checks.rows, stage.world.fleet.dsn, stage.story(name).uid)
        if [status for status, _ in found] != ["pending"]:
            raise AssertionError(f"{name} is suspended and its rows are {found}")
        await stage.change(name, suspend=False)
    stage.release("one", "two")


async def _suspended_from_the_start(stage: Stage) -> None:
    await stage.submit("one", suspend=True)
    await stage.until_condition("one", "Suspended", "True", "Suspended")
    if stage.story("one").jobs:
        raise AssertionError(f"a suspended IngestJob has Jobs {stage.story('one').jobs}")
    await stage.change("one", suspend=False)


async def _active_deadline(stage: Stage) -> None:
    await stage.submit_held("one", "two", expected=failed("DeadlineExceeded"))
    for name in ("one", "two"):
        await stage.change(name, activeDeadlineSeconds=1)


async def _pending_deadline(stage: Stage) -> None:
    never = Behaviour(starts=False)
    for name in ("one", "two"):
        await stage.submit(name, failed("PendingDeadlineExceeded", row=None, documents=0, pods=(0,)), do=never, pendingDeadlineSeconds=3)


async def _deleted(stage: Stage) -> None:
    gone = Expected("", row="cancelled", documents=None, gone=True)
    await stage.submit_held("one", "two", expected=gone)
    for name in ("one", "two"):
        await stage.delete("ingestjobs", name)


async def _left_alone(stage: Stage) -> None:
    """An OOM, a suspend and a deadline leave rows that nobody holds; the fleet's idle workers take a job of their own meanwhile, and none of those."""
    dsn = stage.world.fleet.dsn
    uids = [
        await stage.submit("memory", Expected(pods=(2,)), held=True, backoffLimit=1),
        await stage.submit("pauses", Expected(pods=(2,)), held=True),
        await stage.submit("late", failed("DeadlineExceeded"), held=True),
    ]
    await stage.reached("memory", "pauses", "late")
    stage.world.kubelet.out_of_memory(stage.runs("memory")[0])  # the Job controller waits 10 s before it makes another pod
    await stage.change("pauses", suspend=True)
    await stage.change("late", activeDeadlineSeconds=1)
    await stage.until_stopped("pauses", "late")
    await stage.fleet_works()
    if await asyncio.to_thread(checks.claimants, dsn, "fleet") != {"fleet"}:
        raise AssertionError("the fleet's job was not done by a worker of the fleet")
    for uid in uids:
        if "fleet" in (who := await asyncio.to_thread(checks.claimants, dsn, f"ingestjob:{uid}")):
            raise AssertionError(f"the row of {uid} was claimed by {who}")
    await stage.reached("memory")
    await stage.change("pauses", suspend=False)
    stage.release("memory", "pauses")


def _exits(code: Exit) -> Play:
    """One that ends with this code, and then, where another try is due, one that works."""

    async def play(stage: Stage) -> None:
        always = Behaviour(always=int(code))
        if code in FINAL:
            await stage.submit("one", failed(FINAL[code], row=None, documents=0), do=always)
        elif code in PARTIAL:
            await stage.submit("one", failed("PartiallyCompleted", row=None, documents=0), do=always, strict=True)
        elif code in RETRIED:
            await stage.submit("one", failed("RetriesExhausted", row=None, documents=0), do=always, backoffLimit=0)
            if code is Exit.TRANSIENT:
                await stage.submit("two", Expected(pods=(2,)), do=Behaviour(exits=(int(code),)), backoffLimit=1)
        elif code in UNCOUNTED:
            await stage.submit("one", Expected(pods=(3,)), do=Behaviour(exits=(int(code), int(code))), backoffLimit=0)
        elif code in FINE:
            await stage.submit("one", Expected(row=None, documents=0), do=always)
        else:
            raise AssertionError(f"exit code {int(code)} is published, and nothing here says what follows from it")

    return play
