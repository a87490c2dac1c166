"""What a schedule owes: each rule of a CronJob, and that no story of crashes, delays and restarts runs a time twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield_operator.api.ingestschedule import IngestSchedule
from shield_operator.api.meta import ConditionStatus, find
from shield_operator.schedules.cron import parse
from shield_operator.schedules.decide import MANY, READY, Plan, Run, RunState, decide, due, jitter, run_name, started, tick_of

MADE = datetime(2026, 11, 23, 12, 0, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def a_schedule(status: dict[str, Any] | None = None, **spec: Any) -> IngestSchedule:
    source = {"web": {"url": "https://docs.example.com/"}}
    return IngestSchedule.model_validate(
        {
            "kind": "IngestSchedule",
            "metadata": {"name": "nightly", "namespace": "team", "uid": "u-1", "generation": 3, "creationTimestamp": MADE},
            "spec": {
                "schedule": "*/10 * * * *",
                "ingestJobTemplate": {"spec": {"source": source, "knowledgeBase": "docs"}},
                **spec,
            },
            "status": status or {},
        }
    )


def a_run(tick: datetime, state: RunState = RunState.ACTIVE, **kwargs: Any) -> Run:
    name = run_name("nightly", tick)
    return Run(name, f"uid-{name}", created=tick, state=state, **kwargs)


def clock(hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2026, 11, 23, hour, minute, second, tzinfo=UTC)


def why(plan: Plan) -> tuple[ConditionStatus, str]:
    condition = find(plan.status.conditions, READY)
    assert condition is not None
    return condition.status, condition.reason


class TestWhatIsOwed:
    TICKS = parse("*/10 * * * *")

    def test_nothing_is_before_the_first_time(self) -> None:
        assert due(self.TICKS, since=MADE, now=clock(12, 9, 59)).tick is None

    def test_a_time_is_from_its_very_second(self) -> None:
        owed = due(self.TICKS, since=MADE, now=clock(12, 10))
        assert (owed.tick, owed.missed, owed.following) == (clock(12, 10), 0, clock(12, 20))

    def test_of_several_only_the_latest_is(self) -> None:
        owed = due(self.TICKS, since=MADE, now=clock(13, 3))
        assert (owed.tick, owed.missed) == (clock(13, 0), 5)

    def test_a_time_that_was_acted_upon_is_not(self) -> None:
        assert due(self.TICKS, since=clock(12, 10), now=clock(12, 15)).tick is None

    def test_a_time_is_no_longer_once_its_deadline_passed(self) -> None:
        limit = timedelta(seconds=90)
        assert due(self.TICKS, since=MADE, now=clock(12, 11, 29), deadline=limit).tick == clock(12, 10)
        late = due(self.TICKS, since=MADE, now=clock(12, 11, 30), deadline=limit)
        assert (late.tick, late.missed) == (None, 1)

    def test_counting_stops_where_it_would_cost(self) -> None:
        owed = due(self.TICKS, since=MADE - timedelta(days=3000), now=MADE)
        assert (owed.tick, owed.missed) == (clock(12, 0), MANY)

    @settings(max_examples=50, deadline=None)
    @given(since=st.integers(0, 2000), length=st.integers(0, 300), limit=st.none() | st.integers(1, 20_000))
    def test_it_is_the_last_minute_that_matches_and_is_young_enough(self, since: int, length: int, limit: int | None) -> None:
        ticks, begin = parse("7,37 */3 * * *", "America/New_York"), datetime(2027, 3, 13, tzinfo=UTC)
        start, now = begin + since * MINUTE, begin + (since + length) * MINUTE
        owed = due(ticks, since=start, now=now, deadline=None if limit is None else timedelta(seconds=limit))
        all_times = [moment for m in range(1, length + 1) if ticks.until(moment := start + m * MINUTE) == moment]
        open_times = [moment for moment in all_times if limit is None or now - moment < timedelta(seconds=limit)]
        assert owed.tick == (open_times[-1] if open_times else None)
        assert owed.missed == min(MANY + 1, len(all_times)) - (owed.tick is not None)


class TestDecide:
    def test_a_run_starts_at_its_time(self) -> None:
        plan = decide(a_schedule(), [], clock(12, 10, 1))
        assert (plan.start, plan.wake, plan.stop, plan.prune) == (clock(12, 10), clock(12, 20), (), ())
        assert why(plan) == (ConditionStatus.TRUE, "Scheduled")
        assert plan.status.next_schedule_time == clock(12, 20)

    def test_it_is_late_when_two_times_have_passed_without_a_success(self) -> None:
        delay = jitter("team", "nightly", 300)
        assert decide(a_schedule(), [], clock(12, 3)).late == clock(12, 20)
        assert decide(a_schedule(jitterSeconds=300), [], clock(12, 3)).late == clock(12, 20) + delay
        done = a_run(clock(12, 10), RunState.COMPLETE, completed=clock(12, 14))
        assert decide(a_schedule(), [done], clock(12, 15)).late == clock(12, 30)
        failed = a_run(clock(12, 20), RunState.FAILED, completed=clock(12, 21))
        assert decide(a_schedule(), [done, failed], clock(12, 25)).late == clock(12, 30)
        assert decide(a_schedule(suspend=True), [], clock(15, 0)).late is None
        assert decide(a_schedule(timeZone="Nowhere/AtAll"), [], clock(15, 0)).late is None

    def test_before_its_time_it_waits(self) -> None:
        plan = decide(a_schedule(), [], clock(12, 3))
        assert (plan.start, plan.wake) == (None, clock(12, 10))

    def test_what_many_missed_times_cost_is_one_run(self) -> None:
        plan = decide(a_schedule(), [], clock(12, 10) + timedelta(days=30))
        assert plan.start == clock(12, 10) + timedelta(days=30)
        assert plan.missed == MANY

    def test_jitter_shifts_the_start_but_not_the_name(self) -> None:
        schedule = a_schedule(jitterSeconds=300)
        delay = jitter("team", "nightly", 300)
        assert timedelta() < delay < timedelta(seconds=300)
        assert decide(schedule, [], clock(12, 10) + delay - timedelta(seconds=1)).start is None
        plan = decide(schedule, [], clock(12, 10) + delay)
        assert (plan.start, plan.status.next_schedule_time) == (clock(12, 10), clock(12, 20) + delay)

    def test_jitter_is_stable_and_differs_between_schedules(self) -> None:
        delays = {jitter("team", f"nightly-{number}", 3600) for number in range(50)}
        assert len(delays) > 40
        assert jitter("team", "nightly", 3600) == jitter("team", "nightly", 3600)
        assert jitter("team", "nightly", 0) == timedelta()

    def test_suspended_it_starts_nothing_and_still_cleans_up(self) -> None:
        runs = [a_run(clock(11, minute), RunState.FAILED) for minute in (10, 20, 30)]
        plan = decide(a_schedule(suspend=True), runs, clock(12, 10))
        assert (plan.start, plan.wake, plan.status.next_schedule_time) == (None, None, None)
        assert [run.name for run in plan.prune] == [runs[0].name, runs[1].name]
        assert why(plan) == (ConditionStatus.FALSE, "Suspended")

    def test_after_a_suspension_the_latest_missed_time_is_owed(self) -> None:
        assert decide(a_schedule(), [], clock(15, 45)).start == clock(15, 40)

    def test_a_schedule_that_cannot_be_read_says_so(self) -> None:
        plan = decide(a_schedule(schedule="61 * * * *"), [], clock(12, 10))
        assert why(plan) == (ConditionStatus.FALSE, "InvalidSchedule")
        assert "61" in plan.status.conditions[0].message

    def test_an_unknown_time_zone_says_so(self) -> None:
        assert why(decide(a_schedule(timeZone="Mars/Olympus"), [], clock(12, 10))) == (ConditionStatus.FALSE, "InvalidSchedule")

    def test_a_day_that_never_comes_says_so(self) -> None:
        plan = decide(a_schedule(schedule="0 0 30 2 *"), [], clock(12, 10))
        assert (why(plan), plan.wake) == ((ConditionStatus.FALSE, "InvalidSchedule"), None)

    def test_forbid_waits_for_the_run_that_is_going(self) -> None:
        schedule = a_schedule(concurrencyPolicy="Forbid")
        going = a_run(clock(12, 10))
        plan = decide(schedule, [going], clock(12, 20))
        assert (plan.start, plan.wake) == (None, clock(12, 30))
        assert going.name in plan.status.conditions[0].message
        ended = replace(going, state=RunState.COMPLETE, completed=clock(12, 24))
        late = decide(schedule, [ended], clock(12, 24))
        assert late.start == clock(12, 20)
        assert late.status.last_successful_time == clock(12, 24)

    def test_forbid_counts_a_run_that_is_being_deleted_until_it_is_gone(self) -> None:
        plan = decide(a_schedule(concurrencyPolicy="Forbid"), [a_run(clock(12, 10), deleting=True)], clock(12, 20))
        assert plan.start is None

    def test_replace_stops_the_run_that_is_going(self) -> None:
        going = a_run(clock(12, 10))
        plan = decide(a_schedule(concurrencyPolicy="Replace"), [going], clock(12, 20))
        assert (plan.start, plan.stop) == (clock(12, 20), (going,))
        now = started(plan.status, a_run(clock(12, 20)), clock(12, 20), plan.stop)
        assert [run.name for run in now.active] == [run_name("nightly", clock(12, 20))]

    def test_replace_stops_nothing_before_the_time(self) -> None:
        assert decide(a_schedule(concurrencyPolicy="Replace"), [a_run(clock(12, 10))], clock(12, 19)).stop == ()

    def test_allow_lets_both_run(self) -> None:
        going = a_run(clock(12, 10))
        plan = decide(a_schedule(), [going], clock(12, 20))
        assert (plan.start, plan.stop) == (clock(12, 20), ())
        assert len(started(plan.status, a_run(clock(12, 20)), clock(12, 20), ()).active) == 2

    def test_history_keeps_the_youngest_of_each_kind(self) -> None:
        good = [a_run(clock(hour, 0), RunState.COMPLETE, completed=clock(hour, 5)) for hour in range(5)]
        bad = [a_run(clock(hour, 10), RunState.FAILED) for hour in range(3)]
        plan = decide(a_schedule({"lastScheduleTime": clock(12, 0)}), [*bad, *good, a_run(clock(1, 30))], clock(12, 5))
        assert plan.prune == (*good[:2], *bad[:2])
        assert plan.status.last_successful_time == good[-1].completed

    def test_history_limits_of_zero_keep_nothing(self) -> None:
        runs = [
            a_run(clock(1, 0), RunState.COMPLETE),
            a_run(clock(2, 0), RunState.FAILED),
            a_run(clock(3, 0), RunState.COMPLETE, deleting=True),
        ]
        plan = decide(a_schedule(successfulJobsHistoryLimit=0, failedJobsHistoryLimit=0), runs, clock(12, 5))
        assert plan.prune == tuple(runs[:2])

    def test_a_run_that_the_status_does_not_know_counts_as_started(self) -> None:
        plan = decide(a_schedule(), [a_run(clock(12, 10))], clock(12, 15))
        assert (plan.start, plan.status.last_schedule_time) == (None, clock(12, 10))

    def test_the_status_never_goes_back(self) -> None:
        known = {"lastScheduleTime": clock(12, 10), "lastSuccessfulTime": clock(12, 12)}
        plan = decide(a_schedule(known), [a_run(clock(9, 0), RunState.COMPLETE, completed=clock(9, 1))], clock(12, 15))
        assert (plan.status.last_schedule_time, plan.status.last_successful_time) == (clock(12, 10), clock(12, 12))

    def test_the_active_list_is_bounded(self) -> None:
        runs = [a_run(clock(0, 0) + number * MINUTE) for number in range(150)]
        assert len(decide(a_schedule(), runs, clock(12, 5)).status.active) == 100

    def test_deciding_again_changes_nothing(self) -> None:
        first = decide(a_schedule(), [], clock(12, 3))
        again = decide(a_schedule(first.status.model_dump()), [], clock(12, 4))
        assert again.status == first.status


@pytest.mark.parametrize(
    ("name", "tick"),
    [
        ("nightly-29923930", clock(12, 10)),
        ("nightly", None),
        ("nightly-x", None),
        ("nightly-1-29923930", None),
        ("other-29923930", None),
        ("nightly-29923930000", None),
    ],
)
def test_a_time_is_read_from_names_of_runs_alone(name: str, tick: datetime | None) -> None:
    assert tick_of("nightly", name) == tick


class World:
    """A schedule, its runs, and an operator that may die between any two of its writes and then begins again from the cluster alone."""

    def __init__(self, **spec: Any) -> None:
        self.spec = spec
        self.status: dict[str, Any] = {}
        self.runs: dict[str, Run] = {}
        self.made: list[str] = []

    def end(self, name: str, state: RunState, now: datetime) -> None:
        if self.runs[name].state is RunState.ACTIVE:
            self.runs[name] = replace(self.runs[name], state=state, completed=now)

    def reconcile(self, now: datetime, writes: int) -> None:
        plan = decide(a_schedule(self.status, **self.spec), list(self.runs.values()), now)
        final = plan.status
        if plan.start is not None and self.spec["concurrencyPolicy"] == "Forbid":
            assert all(run.state is not RunState.ACTIVE for run in self.runs.values())
        for run in plan.stop if writes >= 1 else ():
            del self.runs[run.name]
        if plan.start is not None and writes >= 2:
            new = a_run(plan.start)
            self.made.append(new.name)
            self.runs[new.name] = new
            final = started(plan.status, new, plan.start, plan.stop)
        if writes >= 3:
            self.status = final.model_dump()
        for run in plan.prune if writes >= 4 else ():
            del self.runs[run.name]


MOVES = st.tuples(
    st.sampled_from([1, 30, 200, 600, 1500, 90_000]),
    st.lists(st.sampled_from([None, RunState.COMPLETE, RunState.FAILED]), min_size=3, max_size=3),
    st.integers(0, 4),
)


@settings(max_examples=40, deadline=None)
@given(moves=st.lists(MOVES, max_size=15), policy=st.sampled_from(["Allow", "Forbid", "Replace"]), limit=st.integers(0, 2))
def test_no_story_runs_a_time_twice_or_forgets_the_present(moves: list[Any], policy: str, limit: int) -> None:
    world, now = World(concurrencyPolicy=policy, successfulJobsHistoryLimit=limit, failedJobsHistoryLimit=limit), MADE
    for seconds, endings, writes in moves:
        now += timedelta(seconds=seconds)
        for name, ending in zip(list(world.runs), endings, strict=False):
            if ending is not None:
                world.end(name, ending, now)
        world.reconcile(now, writes)
    assert len(world.made) == len(set(world.made))
    for name in list(world.runs):
        world.end(name, RunState.COMPLETE, now)
    world.reconcile(now + timedelta(minutes=10), 4)
    assert world.status["last_schedule_time"] > now
