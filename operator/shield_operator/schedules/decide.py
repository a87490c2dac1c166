"""What an IngestSchedule owes at this moment: which run to start, which to stop, which to forget.

A pure function of the schedule, of the runs that are its own, and of the time. The rules are a CronJob's, and one more:

- **Only the latest time that has passed is owed**, however many were missed; `startingDeadlineSeconds` says how late it may start.
- `Forbid` lets it wait for the run that is going; `Replace` stops that run; `Allow` does neither.
- `suspend` starts nothing. What is missed meanwhile counts as missed: the latest time is owed once it ends, within the deadline.
- Jitter shifts the schedule's whole clock by an amount that depends on namespace and name alone. A run is named after its nominal time.

Nothing is remembered but in the cluster: `lastScheduleTime`, and the runs themselves. A run whose name holds a later time than the status
was started by an operator that died before it could say so; it counts as started. So no crash makes a second run of a time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from shield_operator.api.ingestschedule import ActiveRun, ConcurrencyPolicy, IngestSchedule, IngestScheduleStatus
from shield_operator.api.meta import Condition, ConditionStatus, with_condition
from shield_operator.schedules.cron import ScheduleInvalid, Ticks, count, parse

READY = "Ready"
MANY = 100
"""As with a CronJob: when more times than these were missed, that is said aloud."""
_MAX_ACTIVE = 100
_RUN = re.compile(r"-(\d{1,10})", re.ASCII)


class RunState(StrEnum):
    """How far a run is."""

    ACTIVE = "active"
    COMPLETE = "complete"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a schedule is Ready, or not."""

    SCHEDULED = "Scheduled"
    SUSPENDED = "Suspended"
    INVALID_SPEC = "InvalidSpec"
    INVALID_SCHEDULE = "InvalidSchedule"
    NAME_CONFLICT = "NameConflict"
    RUN_REFUSED = "RunRefused"


@dataclass(frozen=True)
class Run:
    """An IngestJob that the schedule made."""

    name: str
    uid: str
    created: datetime
    state: RunState = RunState.ACTIVE
    completed: datetime | None = None
    deleting: bool = False


@dataclass(frozen=True)
class Due:
    """What a schedule owes."""

    tick: datetime | None
    """The time that is owed a run now."""
    missed: int
    """Times before it that will never have one; counted up to `MANY` + 1."""
    following: datetime | None
    """The next time after now."""


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: stop, start, write the status, prune."""

    status: IngestScheduleStatus
    """As it is if nothing is started."""
    start: datetime | None = None
    missed: int = 0
    stop: tuple[Run, ...] = ()
    prune: tuple[Run, ...] = ()
    wake: datetime | None = None
    """When to look again, if nothing happens before."""
    late: datetime | None = None
    """When two of its times will have passed since its last success; None: nothing is expected of it."""


def due(ticks: Ticks, *, since: datetime, now: datetime, deadline: timedelta | None = None) -> Due:
    """What is owed at `now`, if `since` is when the schedule was last acted upon; a time is owed for `deadline`."""
    following = ticks.after(now)
    latest = ticks.until(now)
    missed = count(ticks, since, now, MANY + 1)
    earliest = since if deadline is None else max(since, now - deadline)
    if latest is None or latest <= earliest:
        return Due(None, missed, following)
    return Due(latest, missed - 1, following)


def jitter(namespace: str, name: str, seconds: int) -> timedelta:
    """How much later than its nominal times a schedule starts: below `seconds`, always the same."""
    if seconds == 0:
        return timedelta()
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).digest()
    return timedelta(seconds=int.from_bytes(digest[:8], "big") % seconds)


def run_name(schedule: str, tick: datetime) -> str:
    """What the run of a time is called: `<schedule>-<minutes since 1970>`."""
    return f"{schedule}-{int(tick.timestamp()) // 60}"


def tick_of(schedule: str, run: str) -> datetime | None:
    """The time in a run's name; None if it is not named after one."""
    found = _RUN.fullmatch(run.removeprefix(schedule)) if run.startswith(schedule) else None
    return datetime.fromtimestamp(int(found[1]) * 60, UTC) if found else None


def decide(schedule: IngestSchedule, runs: Sequence[Run], now: datetime) -> Plan:
    """What to do for a schedule with these runs at this moment."""
    spec, meta = schedule.spec, schedule.metadata
    active = [run for run in runs if run.state is RunState.ACTIVE]
    last = _last_time(schedule, runs)
    prune = _surplus(runs, RunState.COMPLETE, spec.successful_jobs_history_limit) + _surplus(
        runs, RunState.FAILED, spec.failed_jobs_history_limit
    )
    status = schedule.status.model_copy(
        update={
            "observed_generation": meta.generation,
            "active": tuple(ActiveRun(name=run.name, uid=run.uid) for run in active[-_MAX_ACTIVE:]),
            "last_schedule_time": last,
            "last_successful_time": _last_success(schedule, runs),
            "next_schedule_time": None,
        }
    )
    if spec.suspend:
        return Plan(ready(status, now, ConditionStatus.FALSE, Reason.SUSPENDED, "The schedule is suspended."), prune=prune)
    try:
        ticks = parse(spec.schedule, spec.time_zone)
    except ScheduleInvalid as error:
        message = f"The schedule cannot be followed: {error}."
        return Plan(ready(status, now, ConditionStatus.FALSE, Reason.INVALID_SCHEDULE, message), prune=prune)

    delay = jitter(meta.namespace, meta.name, spec.jitter_seconds)
    deadline = None if spec.starting_deadline_seconds is None else timedelta(seconds=spec.starting_deadline_seconds)
    owed = due(ticks, since=last or meta.creation_timestamp or now, now=now - delay, deadline=deadline)
    wake = None if owed.following is None else owed.following + delay
    status = status.model_copy(update={"next_schedule_time": wake})
    missed = ticks.after(status.last_successful_time or meta.creation_timestamp or now)
    second = None if missed is None else ticks.after(missed)
    late = None if second is None else second + delay
    if wake is None and owed.tick is None:
        message = "The schedule cannot be followed: no day of the next five years matches."
        return Plan(ready(status, now, ConditionStatus.FALSE, Reason.INVALID_SCHEDULE, message), prune=prune)
    if owed.tick is not None and active and spec.concurrency_policy is ConcurrencyPolicy.FORBID:
        message = f"The run of {_shown(owed.tick)} waits for {active[0].name}."
        return Plan(ready(status, now, ConditionStatus.TRUE, Reason.SCHEDULED, message), prune=prune, wake=wake, late=late)
    replaced = spec.concurrency_policy is ConcurrencyPolicy.REPLACE and owed.tick is not None
    return Plan(
        ready(status, now, ConditionStatus.TRUE, Reason.SCHEDULED, "The next run starts at nextScheduleTime."),
        start=owed.tick,
        missed=owed.missed if owed.tick is not None else 0,
        stop=tuple(run for run in active if not run.deleting) if replaced else (),
        prune=prune,
        wake=wake,
        late=late,
    )


def started(status: IngestScheduleStatus, run: Run, tick: datetime, stopped: Iterable[Run]) -> IngestScheduleStatus:
    """The status once this run was started, and others were stopped for it."""
    gone = {other.uid for other in stopped}
    going = [one for one in status.active if one.uid not in gone and one.uid != run.uid]
    active = (*going, ActiveRun(name=run.name, uid=run.uid)) if run.state is RunState.ACTIVE else tuple(going)
    return status.model_copy(update={"active": active[-_MAX_ACTIVE:], "last_schedule_time": tick})


def ready(status: IngestScheduleStatus, now: datetime, value: ConditionStatus, reason: Reason, message: str) -> IngestScheduleStatus:
    """The status with its Ready condition said anew."""
    condition = Condition(
        type=READY,
        status=value,
        observed_generation=status.observed_generation,
        last_transition_time=now,
        reason=reason.value,
        message=message,
    )
    return status.model_copy(update={"conditions": with_condition(status.conditions, condition)})


def _last_time(schedule: IngestSchedule, runs: Sequence[Run]) -> datetime | None:
    ticks = [tick for run in runs if (tick := tick_of(schedule.metadata.name, run.name)) is not None]
    known = schedule.status.last_schedule_time
    return max([*ticks, *([known] if known else [])], default=None)


def _last_success(schedule: IngestSchedule, runs: Sequence[Run]) -> datetime | None:
    times = [run.completed for run in runs if run.state is RunState.COMPLETE and run.completed is not None]
    known = schedule.status.last_successful_time
    return max([*times, *([known] if known else [])], default=None)


def _surplus(runs: Sequence[Run], state: RunState, keep: int) -> tuple[Run, ...]:
    finished = sorted((run for run in runs if run.state is state and not run.deleting), key=lambda run: (run.created, run.name))
    return tuple(finished[: max(0, len(finished) - keep)])


def _shown(tick: datetime) -> str:
    return tick.strftime("%Y-%m-%dT%H:%M:%SZ")
