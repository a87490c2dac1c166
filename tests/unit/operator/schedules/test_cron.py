"""The times of a schedule: against the sentence that defines them, taken literally, and against the library that CronJob uses.

`cronjob_times.jsonl` holds times that `ParseStandard` and `Next` of robfig/cron v3.0.1 gave, in minutes since 1970; null where it refuses.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shield_operator.schedules.cron import MINUTE, ScheduleInvalid, between, count, parse

CASES = [json.loads(line) for line in Path(__file__).with_name("cronjob_times.jsonl").read_text().splitlines()]
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Asia/Beirut", "America/Havana",
    "Pacific/Apia", "Africa/Casablanca", "Antarctica/Troll",
)  # fmt: skip
CHANGES = (  # of clocks in those zones: spring, autumn, half an hour, at midnight, two hours
    "2027-03-28T00:00Z", "2027-10-31T00:30Z", "2027-03-14T06:30Z", "2027-11-07T05:30Z", "2027-04-03T14:30Z", "2027-10-02T15:00Z",
    "2027-03-27T21:30Z", "2027-10-30T20:30Z", "2027-11-07T04:30Z", "2027-02-07T01:30Z",
)  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def items(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    span = st.tuples(value, value).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.integers(1, high)
    return st.one_of(
        st.just("*"),
        st.just("?"),
        value.map(str),
        span,
        st.tuples(st.one_of(st.just("*"), value.map(str), span), step).map(lambda parts: f"{parts[0]}/{parts[1]}"),
    )


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    return st.lists(items(low, high), min_size=1, max_size=2).map(",".join)


SCHEDULES = st.tuples(fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 6)).map(" ".join)
MOMENTS = st.one_of(
    st.integers(0, 6 * 365 * 24 * 60).map(lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)),
    st.tuples(st.sampled_from(CHANGES).map(at), st.integers(-1500, 1500)).map(lambda pair: pair[0] + pair[1] * MINUTE),
)


def _values(field: str, low: int, high: int) -> tuple[set[int], bool]:
    """A field's values by trying each number against each item: another way than the code's."""
    values, star = set(), False
    for item in field.split(","):
        span, _, step = item.partition("/")
        first, dash, last = span.partition("-")
        begin = low if span in "*?" else int(first)
        end = int(last) if dash else high if span in "*?" or step else begin
        values |= {number for number in range(low, high + 1) if begin <= number <= end and (number - begin) % int(step or 1) == 0}
        star |= span in "*?" and int(step or 1) == 1
    return values, star


def _literally(schedule: str) -> Callable[[datetime], bool]:
    """The definition, word for word."""
    (minutes, _), (hours, _), (days, day_star), (months, _), (weekdays, weekday_star) = (
        _values(field, *bounds) for field, bounds in zip(schedule.split(), ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6)), strict=True)
    )

    def matches(local: datetime) -> bool:
        day, weekday = local.day in days, (local.weekday() + 1) % 7 in weekdays
        fits = (day and weekday) if day_star or weekday_star else (day or weekday)
        return fits and local.minute in minutes and local.hour in hours and local.month in months

    return matches


@settings(max_examples=50, deadline=None)
@given(schedule=SCHEDULES, zone=st.sampled_from(ZONES), start=MOMENTS)
@example(schedule="30 2 * * *", zone="Europe/Berlin", start=at("2027-03-27T12:00Z"))
@example(schedule="30 2 * * *", zone="Europe/Berlin", start=at("2027-10-30T12:00Z"))
@example(schedule="0 0 * * *", zone="Asia/Beirut", start=at("2027-03-27T12:00Z"))
@example(schedule="45 1 * * *", zone="Australia/Lord_Howe", start=at("2027-04-03T04:00Z"))
def test_times_are_the_minutes_whose_reading_on_the_clock_matches(schedule: str, zone: str, start: datetime) -> None:
    ticks, clock, matches = parse(schedule, zone), ZoneInfo(zone), _literally(schedule)
    end = start + timedelta(days=1, hours=6)
    window = [start + minute * MINUTE for minute in range(1, 30 * 60 + 1)]
    expected = [moment for moment in window if matches(moment.astimezone(clock))]
    assert list(between(ticks, start, end)) == expected
    assert count(ticks, start, end, 10) == min(10, len(expected))
    last = ticks.until(end)
    if expected:
        assert last == expected[-1]
    else:
        assert last is None or last <= start


@settings(max_examples=50, deadline=None)
@given(schedule=SCHEDULES, zone=st.sampled_from(ZONES), moment=MOMENTS, seconds=st.integers(0, 59))
def test_the_time_after_is_the_first_and_the_time_until_is_the_last(schedule: str, zone: str, moment: datetime, seconds: int) -> None:
    ticks, now = parse(schedule, zone), moment + timedelta(seconds=seconds)
    following, last = ticks.after(now), ticks.until(now)
    assert following is None or following > now
    assert last is None or last <= now
    if following is not None:
        assert ticks.until(following) == following
        assert ticks.until(following - MINUTE) == last
    if last is not None:
        assert ticks.after(last - MINUTE) == last
        assert ticks.after(last) == following


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['schedule']} {case['zone']} {case['start']}")
def test_times_are_those_of_a_cronjob(case: dict[str, Any]) -> None:
    if case["times"] is None:
        with pytest.raises(ScheduleInvalid):
            parse(case["schedule"], case["zone"])
        return
    ticks, start = parse(case["schedule"], case["zone"]), at(case["start"])
    times = islice(between(ticks, start, start + timedelta(days=30 * 365)), 5)
    assert [int(time.timestamp()) // 60 for time in times] == case["times"]


def test_a_day_that_begins_at_one_is_not_lost() -> None:
    """The library loses it: in Beirut no clock shows midnight on that Sunday."""
    times = between(parse("30 9 * * SUN", "Asia/Beirut"), at("2027-03-27T00:00Z"), at("2027-04-05T00:00Z"))
    assert [str(time.astimezone(ZoneInfo("Asia/Beirut"))) for time in times] == ["2027-03-28 09:30:00+03:00", "2027-04-04 09:30:00+03:00"]


def test_without_a_time_zone_it_is_utc() -> None:
    assert parse("0 3 * * *").after(at("2026-11-23T11:50Z")) == at("2026-11-24T03:00Z")


def test_a_day_that_never_comes_has_no_time() -> None:
    ticks = parse("0 0 30 2 *", "Europe/Berlin")
    assert ticks.after(at("2026-11-23T11:50Z")) is None
    assert ticks.until(at("2026-11-23T11:50Z")) is None


@pytest.mark.parametrize("zone", ["Mars/Olympus", "Europe", "../etc/passwd", "/etc/localtime", "Europe/Berlin\x00", "a" * 300, "Etc/"])
def test_a_time_zone_that_is_unknown_is_named(zone: str) -> None:
    with pytest.raises(ScheduleInvalid, match="time zone"):
        parse("0 3 * * *", zone)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("61 * * * *", "minute: `61` must lie between 0 and 59"),
        ("* * * * 7", "day of week: `7` must lie between 0 and 6"),
        ("* */0 * * *", "hour: the step of `\\*/0` must be at least 1"),
        ("* * 9-3 * *", "day of month: `9-3` must lie between 1 and 31, and not run backwards"),
        ("* * * foo *", "month: `foo` is not a number"),
        ("1,,2 * * * *", "minute: `` is not a number"),
        ("٣ * * * *", "minute: `٣` is not a number"),
        ("@every 5m", "is none of @yearly"),
        ("", "has 5 fields"),
        ("* * * *", "this has 4"),
    ],
)
def test_what_is_wrong_is_said(schedule: str, said: str) -> None:
    with pytest.raises(ScheduleInvalid, match=said):
        parse(schedule)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ScheduleInvalid):
        parse(text)
