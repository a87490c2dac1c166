"""The controller of IngestSchedules: does what `decide` says, in an order that any crash may cut.

Stop what is replaced, start what is owed, write the status once, tell of it, then prune. Before anything is started the schedule and its runs
are read afresh, as a cache may be a moment late; and a run is created by a name that only its time decides, so of two operators one is told
that it exists. Runs go with their schedule (owner references); a run that the schedule does not own is never touched, whatever its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from shield_operator.api.ingestjob import ConditionType
from shield_operator.api.ingestschedule import IngestSchedule, IngestScheduleStatus
from shield_operator.api.meta import ConditionStatus, ObjectMeta, find
from shield_operator.cluster import INGESTJOBS, INGESTSCHEDULES, AlreadyExists, Cluster, Forbidden, Invalid, Key, NotFound, Obj
from shield_operator.names import API_VERSION, GROUP, MANAGED_BY_LABEL, MANAGER
from shield_operator.queue import DONE, Result, WorkQueue
from shield_operator.schedules.decide import MANY, READY, Plan, Reason, Run, RunState, decide, ready, run_name, started
from shield_operator.watching import Cache, Change, Watch, owner_of
from shield_operator.writes import status_patch, tell

SCHEDULE_LABEL = f"{GROUP}/ingestschedule"
"""On each run: the schedule that made it."""
TIME_ANNOTATION = f"{GROUP}/scheduled-time"
"""On each run: its nominal time, on the schedule's own clock."""


@dataclass(frozen=True)
class _Outcome:
    """What became of a plan."""

    status: IngestScheduleStatus
    begun: str = ""
    """The run that was created just now."""
    again: float | None = None
    """Seconds after which to try again what was refused."""


class ScheduleController:
    """Makes IngestJobs of IngestSchedules."""

    name = "ingestschedule"
    primary = INGESTSCHEDULES
    watches: Sequence[Watch] = (Watch(INGESTSCHEDULES), Watch(INGESTJOBS))

    def __init__(
        self,
        schedules: Cache,
        jobs: Cache,
        cluster: Cluster,
        queue: WorkQueue[Key],
        *,
        workers: int = 32,
        look_again: float = 300.0,
        refused_pause: float = 60.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """A controller on these caches.

        Args:
            schedules: what is known of IngestSchedules.
            jobs: what is known of IngestJobs.
            cluster: what is written through.
            queue: its keys.
            workers: how many schedules to look at at once.
            look_again: most seconds until a schedule is looked at again, should the machine's clock be set meanwhile.
            refused_pause: seconds until a run that the API server refused is tried again.
            now: the time.
        """
        self.queue = queue
        self.workers = workers
        self._schedules = schedules
        self._jobs = jobs
        self._cluster = cluster
        self._look_again = look_again
        self._refused_pause = refused_pause
        self._now = now
        self._late: dict[Key, datetime] = {}

    def late(self) -> int:
        """How many schedules have missed two times in a row, by now."""
        now = self._now()
        return sum(since <= now for since in self._late.values())

    def keys_of(self, change: Change) -> Iterable[Key]:
        """The schedule itself, or the one whose run changed."""
        if change.kind == INGESTSCHEDULES:
            return (change.key,)
        if change.owner is not None and change.owner.kind == INGESTSCHEDULES.kind:
            return (Key(change.key.namespace, change.owner.name),)
        return ()

    async def background(self) -> None:
        """Nothing: each schedule wakes itself."""

    async def reconcile(self, key: Key) -> Result:
        """Start, stop and forget runs of one schedule."""
        self._late.pop(key, None)
        obj = self._schedules.get(key)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return DONE
        schedule = await self._parsed(key, obj)
        if schedule is None:
            return DONE
        plan = decide(schedule, [run_of(job) for job in self._jobs.children(schedule.metadata.uid)], self._now())
        if plan.start is not None:
            try:
                obj = await self._cluster.get(INGESTSCHEDULES, *key)
            except NotFound:
                return DONE
            schedule = await self._parsed(key, obj)
            if schedule is None or schedule.metadata.deleting:
                return DONE
            plan = decide(schedule, await self._runs(key, schedule.metadata.uid), self._now())
        return await self._carry_out(key, obj, schedule, plan)

    async def _carry_out(self, key: Key, obj: Obj, schedule: IngestSchedule, plan: Plan) -> Result:
        if plan.late is not None:
            self._late[key] = plan.late
        for run in plan.stop:
            await self._cluster.delete(INGESTJOBS, key.namespace, run.name, uid=run.uid)
        outcome = _Outcome(plan.status)
        if plan.start is not None:
            outcome = await self._start(key, obj, schedule, plan, plan.start)
        await self._write(key, obj, schedule.status, outcome.status)
        if outcome.begun:
            await self._tell(obj, "Started", f"Created IngestJob {outcome.begun}.")
        if outcome.begun and plan.missed >= MANY:
            times = f"{MANY} or more times passed without a run; only the latest was made up for. Set startingDeadlineSeconds, or check the clocks."
            await self._tell(obj, "Failed", times, warning=True)
        for run in plan.prune:
            await self._cluster.delete(INGESTJOBS, key.namespace, run.name, uid=run.uid)
        if outcome.again is not None:
            return Result(outcome.again)
        if plan.wake is None:
            return DONE
        return Result(min(self._look_again, max(0.0, (plan.wake - self._now()).total_seconds())))

    async def _start(self, key: Key, obj: Obj, schedule: IngestSchedule, plan: Plan, tick: datetime) -> _Outcome:
        body = run_body(obj, schedule, tick)
        name, now, created = body["metadata"]["name"], self._now(), True
        try:
            made = await self._cluster.create(INGESTJOBS, key.namespace, body)
        except AlreadyExists:
            made, created = await self._cluster.get(INGESTJOBS, key.namespace, name), False
        except (Invalid, Forbidden) as error:
            message = f"The API server refused the run: {error.message}"[:1024]
            return _Outcome(ready(plan.status, now, ConditionStatus.FALSE, Reason.RUN_REFUSED, message), again=self._refused_pause)
        owner = owner_of(made)
        if owner is None or owner.uid != schedule.metadata.uid:
            message = f"An IngestJob {name} exists that this schedule does not own; this run is left out while it does."
            return _Outcome(ready(plan.status, now, ConditionStatus.FALSE, Reason.NAME_CONFLICT, message))
        self._jobs.wrote(made)
        return _Outcome(started(plan.status, run_of(made), tick, plan.stop), begun=name if created else "")

    async def _runs(self, key: Key, uid: str) -> list[Run]:
        """The schedule's own runs: those that a fresh list has, and those known that lost their label."""
        found = {job["metadata"]["name"]: job for job in self._jobs.children(uid)}
        async for page in self._cluster.list(INGESTJOBS, key.namespace, selector=f"{SCHEDULE_LABEL}={key.name}"):
            found |= {job["metadata"]["name"]: job for job in page.items if (owner := owner_of(job)) is not None and owner.uid == uid}
        return [run_of(job) for _, job in sorted(found.items())]

    async def _parsed(self, key: Key, obj: Obj) -> IngestSchedule | None:
        """The schedule; None if it cannot be read, which its status then says."""
        try:
            return IngestSchedule.model_validate(obj)
        except ValidationError as error:
            old = IngestScheduleStatus.model_validate(obj.get("status") or {})
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            new = old.model_copy(
                update={"observed_generation": ObjectMeta.model_validate(obj["metadata"]).generation, "next_schedule_time": None}
            )
            message = f"{where}: {first['msg']}"[:1024]
            await self._write(key, obj, old, ready(new, self._now(), ConditionStatus.FALSE, Reason.INVALID_SPEC, message))
            return None

    async def _write(self, key: Key, obj: Obj, old: IngestScheduleStatus, new: IngestScheduleStatus) -> None:
        patch = status_patch(old, new)
        if not patch:
            return
        body = {"metadata": {"uid": obj["metadata"]["uid"]}, "status": patch}
        self._schedules.wrote(await self._cluster.patch(INGESTSCHEDULES, *key, body, subresource="status"))
        was, now = find(old.conditions, READY), find(new.conditions, READY)
        problem = now is not None and now.status is ConditionStatus.FALSE and now.reason != Reason.SUSPENDED
        if now is not None and problem and (was is None or (was.reason, was.message) != (now.reason, now.message)):
            await self._tell(obj, "Failed", now.message, warning=True)

    async def _tell(self, obj: Obj, reason: str, message: str, *, warning: bool = False) -> None:
        await tell(self._cluster, INGESTSCHEDULES, obj, reason=reason, message=message, warning=warning, now=self._now())


def run_of(job: Obj) -> Run:
    """An IngestJob as its schedule sees it."""
    meta, status = job["metadata"], job.get("status") or {}
    true = {condition["type"] for condition in status.get("conditions") or () if condition["status"] == ConditionStatus.TRUE}
    state = RunState.ACTIVE
    if ConditionType.COMPLETE in true:
        state = RunState.COMPLETE
    elif ConditionType.FAILED in true:
        state = RunState.FAILED
    completed = status.get("completionTime")
    return Run(
        name=meta["name"],
        uid=meta["uid"],
        created=datetime.fromisoformat(meta["creationTimestamp"]),
        state=state,
        completed=datetime.fromisoformat(completed) if completed else None,
        deleting=bool(meta.get("deletionTimestamp")),
    )


def run_body(obj: Obj, schedule: IngestSchedule, tick: datetime) -> Obj:
    """The IngestJob of a time; its spec is the template's, word for word."""
    template: Mapping[str, Any] = obj["spec"]["ingestJobTemplate"]
    given = template.get("metadata") or {}
    clock = ZoneInfo(schedule.spec.time_zone or "UTC")
    name = schedule.metadata.name
    return {
        "apiVersion": API_VERSION,
        "kind": INGESTJOBS.kind,
        "metadata": {
            "name": run_name(name, tick),
            "namespace": schedule.metadata.namespace,
            "labels": {**(given.get("labels") or {}), MANAGED_BY_LABEL: MANAGER, SCHEDULE_LABEL: name},
            "annotations": {**(given.get("annotations") or {}), TIME_ANNOTATION: tick.astimezone(clock).isoformat(timespec="seconds")},
            "ownerReferences": [schedule.as_owner().model_dump(mode="json", by_alias=True)],
        },
        "spec": template["spec"],
    }
