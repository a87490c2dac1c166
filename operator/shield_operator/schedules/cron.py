"""When a schedule's times are: CronJob's dialect of cron, in any time zone.

The language is that of a CronJob's `schedule`, which is that of the Go library `robfig/cron`: five fields, `* ? , - /`, names of months and
days, `@daily` and its like. Python's libraries speak Debian's: there `7` is a Sunday, `*/2` as a day counts as `*`, and what a clock
change leaves out is made up for. A schedule that was a CronJob yesterday must keep its times, so the dialect is our own.

What a time is, is said in one sentence: **a minute whose reading on the zone's clock matches all fields**. So a time that the clock skips in
spring does not come that day, and one that it shows twice in autumn comes twice, as with a CronJob. `tests/unit/operator/schedules`
compares it with that sentence taken literally, and with times that the Go library gave; where midnight itself is skipped, or a clock moves
by half an hour, that library loses whole days, and the sentence is kept. `@every` is not offered: it has no time that could be named.

Cost: a step a day that does not match, a step an hour of one that does, a minute within; no step crosses a change of the clock, where it
walks minute by minute. A schedule without a time in five years (30 February) has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Protocol
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
_HORIZON = timedelta(days=5 * 366)
_DAY = 24 * 60
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


class ScheduleInvalid(ValueError):
    """The schedule or its time zone cannot be read; the message says where."""


class Ticks(Protocol):
    """The times of a schedule, all of them whole minutes in UTC."""

    def after(self, moment: datetime) -> datetime | None:
        """The first one after this moment; None if there is none in five years."""

    def until(self, moment: datetime) -> datetime | None:
        """The last one at or before this moment; None if there is none in five years."""


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def parse(self, text: str) -> tuple[frozenset[int], bool]:
        """The values that match, and whether one of the items is all of them (`*`)."""
        values: set[int] = set()
        starred = False
        for item in text.split(","):
            found, star = self._range(item)
            values.update(found)
            starred |= star
        return frozenset(values), starred

    def _range(self, item: str) -> tuple[range, bool]:
        span, slash, step_text = item.partition("/")
        step = self._number(step_text, item) if slash else 1
        if step == 0:
            raise ScheduleInvalid(f"{self.name}: the step of `{item}` must be at least 1")
        if span in ("*", "?"):
            return range(self.low, self.high + 1, step), step == 1
        first, dash, last = span.partition("-")
        start = self._value(first, item)
        end = self._value(last, item) if dash else (self.high if slash else start)
        if not self.low <= start <= end <= self.high:
            raise ScheduleInvalid(f"{self.name}: `{item}` must lie between {self.low} and {self.high}, and not run backwards")
        return range(start, end + 1, step), False

    def _value(self, text: str, item: str) -> int:
        if text.lower() in self.names:
            return self.names.index(text.lower()) + self.low
        return self._number(text, item)

    def _number(self, text: str, item: str) -> int:
        if not _NUMBER.fullmatch(text):
            raise ScheduleInvalid(f"{self.name}: `{item}` is not a number, a name, a range or a step")
        return int(text)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 6, _DAYS),
)


@dataclass(frozen=True)
class _Cron:
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both_days: bool
    """Day of month and day of week must both match; else one of them is enough, as cron has always had it."""
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime | None:
        return self._walk(_floor(moment) + MINUTE, 1)

    def until(self, moment: datetime) -> datetime | None:
        return self._walk(_floor(moment), -1)

    def _walk(self, start: datetime, way: int) -> datetime | None:
        at = start
        while abs(at - start) < _HORIZON:
            local = at.astimezone(self.zone)
            into_day = local.hour * 60 + local.minute
            if not self._matches_day(local):
                minutes = _DAY - into_day if way > 0 else into_day + 1
            elif local.hour not in self.hours:
                minutes = 60 - local.minute if way > 0 else local.minute + 1
            elif local.minute not in self.minutes:
                minutes = 1
            else:
                return at
            target = at + way * minutes * MINUTE
            same_clock = target.astimezone(self.zone).utcoffset() == local.utcoffset()
            at = target if same_clock else at + way * MINUTE
        return None

    def _matches_day(self, local: datetime) -> bool:
        if local.month not in self.months:
            return False
        by_month, by_week = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return by_month and by_week if self.both_days else by_month or by_week


def parse(schedule: str, time_zone: str | None = None) -> Ticks:
    """The times of this schedule on the clock of a zone, UTC if none is named.

    Raises:
        ScheduleInvalid: the schedule cannot be read, or the zone is unknown here.
    """
    zone = _zone(time_zone)
    text = schedule.strip()
    if text.startswith("@") and text not in _NICKNAMES:
        raise ScheduleInvalid(f"`{text}` is none of {', '.join(_NICKNAMES)}")
    parts = _NICKNAMES.get(text, text).split()
    if len(parts) != len(_FIELDS):
        raise ScheduleInvalid(
            f"a schedule has {len(_FIELDS)} fields (minute, hour, day of month, month, day of week); this has {len(parts)}"
        )
    parsed = [field.parse(part) for field, part in zip(_FIELDS, parts, strict=True)]
    minutes, hours, days, months, weekdays = (values for values, _ in parsed)
    return _Cron(minutes, hours, days, months, weekdays, both_days=parsed[2][1] or parsed[4][1], zone=zone)


def between(ticks: Ticks, start: datetime, end: datetime) -> Iterator[datetime]:
    """The times after `start` up to `end`."""
    at = ticks.after(start)
    while at is not None and at <= end:
        yield at
        at = ticks.after(at)


def count(ticks: Ticks, start: datetime, end: datetime, limit: int) -> int:
    """How many times lie after `start` up to `end`; counting stops at `limit`."""
    return sum(1 for _ in islice(between(ticks, start, end), limit))


def _zone(name: str | None) -> ZoneInfo:
    if not name:
        return ZoneInfo("UTC")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # unknown, not a name of a zone, or a directory of zones
        raise ScheduleInvalid(f"the time zone `{name}` is unknown") from error


def _floor(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)
