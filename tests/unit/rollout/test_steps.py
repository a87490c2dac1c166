"""The loop, with a release that only remembers, and a clock that only sleeping moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shield.errors import RolloutBlind, RolloutRefused
from shield.rollout.journal import Journal
from shield.rollout.judge import Track
from shield.rollout.steps import End, Plan, Rollout

FINE = Track(calls=10, errors=0.0)
ILL = Track(calls=10, errors=0.03)
DEAD = Track(calls=10, errors=1.0)
PLAN = Plan(image={"tag": "2"}, steps=(10, 50, 100), interval=30, hold=60, patience=600)


@dataclass
class Release:
    """Remembers what was asked of it."""

    refuses: Callable[[dict[str, str | int]], bool] = lambda _: False
    changes: list[dict[str, str | int]] = field(default_factory=list)
    back: list[int] = field(default_factory=list)

    async def revision(self) -> int:
        return 7

    async def set(self, values: dict[str, str | int], why: str) -> None:
        assert why.startswith("rollout: ")
        if self.refuses(values):
            raise RolloutRefused("not ready in time")
        self.changes.append(values)

    async def roll_back(self, revision: int) -> None:
        self.back.append(revision)

    @property
    def weight(self) -> int:
        return int(next((change["canary.weight"] for change in reversed(self.changes) if "canary.weight" in change), 0))


@dataclass
class World:
    """A rollout with everything around it."""

    canary: Callable[[int, float], Track]
    """By weight and time."""
    plan: Plan = PLAN
    release: Release = field(default_factory=Release)
    lost: tuple[str, ...] = ()
    time: float = 0.0
    said: list[str] = field(default_factory=list)
    journal: Path | None = None

    async def sleep(self, seconds: float) -> None:
        self.time += seconds

    async def look(self) -> tuple[Track, Track]:
        return FINE, self.canary(self.release.weight, self.time)

    async def questions(self) -> tuple[str, ...]:
        return self.lost

    async def run(self) -> End:
        journal = Journal(self.said.append, self.journal)
        return await Rollout(self.plan, self.release, self.look, self.questions, journal, self.sleep, lambda: self.time).run()


async def test_a_good_canary_goes_through_all_steps_and_is_promoted() -> None:
    world = World(lambda _weight, _time: FINE)
    assert await world.run() is End.PROMOTED
    assert world.release.changes == [
        {"canary.mode": "static", "canary.weight": 0, "canary.image.tag": "2"},
        {"canary.weight": 10},
        {"canary.weight": 50},
        {"canary.weight": 100},
        {"images.server.tag": "2"},
        {"canary.weight": 0},
    ]
    assert world.time == 3 * (30 + 60)


async def test_a_canary_that_fails_every_call_is_taken_back_at_the_first_look() -> None:
    world = World(lambda _weight, _time: DEAD)
    assert await world.run() is End.ROLLED_BACK
    assert (world.release.back, world.release.weight, world.time) == ([7], 10, 30)


async def test_one_noisy_minute_is_tolerated_and_two_are_not() -> None:
    assert await World(lambda _weight, time: ILL if time == 30 else FINE).run() is End.PROMOTED
    world = World(lambda weight, _time: ILL if weight == 50 else FINE)
    assert await world.run() is End.ROLLED_BACK
    assert world.release.weight == 50


async def test_time_without_traffic_is_waited_out() -> None:
    world = World(lambda _weight, time: FINE if time > 300 else Track())
    assert await world.run() is End.PROMOTED


async def test_a_step_that_nobody_can_judge_is_taken_back_in_the_end() -> None:
    world = World(lambda _weight, _time: Track())
    assert await world.run() is End.ROLLED_BACK
    assert world.time == 600
    assert "not judged good within 600 s" in world.said[-2]


async def test_a_prometheus_that_is_away_is_no_verdict() -> None:
    def blind(_weight: int, time: float) -> Track:
        if time <= 90:
            raise RolloutBlind("Prometheus does not say")
        return FINE

    world = World(blind)
    assert await world.run() is End.PROMOTED
    assert "10 %: too few calls: Prometheus does not say" in world.said[2]


async def test_lost_golden_questions_end_it_before_any_traffic() -> None:
    world = World(lambda _weight, _time: FINE, lost=("Where?",))
    assert await world.run() is End.ROLLED_BACK
    assert (world.release.weight, world.time) == (0, 0)


async def test_a_canary_that_does_not_become_ready_is_taken_back() -> None:
    world = World(lambda _weight, _time: FINE, release=Release(refuses=lambda values: values.get("canary.mode") == "static"))
    assert await world.run() is End.ROLLED_BACK
    assert world.release.back == [7]


async def test_an_interrupted_one_is_taken_back() -> None:
    world = World(lambda _weight, _time: FINE)
    asleep = asyncio.Event()

    async def forever(_seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    world.sleep = forever  # type: ignore[assignment, method-assign]
    rolling = asyncio.create_task(world.run())
    await asleep.wait()
    rolling.cancel()
    assert await rolling is End.ROLLED_BACK
    assert world.release.back == [7]


async def test_without_promotion_it_keeps_its_share() -> None:
    world = World(lambda _weight, _time: FINE, plan=Plan(image={"tag": "2"}, steps=(10,), promote=False, hold=0))
    assert await world.run() is End.HELD
    assert (world.release.weight, world.release.back) == (10, [])


async def test_every_decision_is_kept(tmp_path: Path) -> None:
    world = World(lambda weight, _time: DEAD if weight == 50 else FINE, journal=tmp_path / "journal")
    await world.run()
    lines = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    assert [line["event"] for line in lines] == [
        "begin",
        "weight",
        "verdict",
        "verdict",
        "verdict",
        "weight",
        "verdict",
        "rollback",
        "rolled back",
    ]
    assert lines[-2]["reasons"] == ["100.0% of calls fail by our fault; stable 0.0%, bound 1.0%"]
    assert [line["text"] in said for line, said in zip(lines, world.said, strict=True)] == [True] * len(lines)


@pytest.mark.parametrize("weight", [10, 100])
async def test_it_can_be_taken_back_from_any_share(weight: int) -> None:
    world = World(lambda now, _time: DEAD if now == weight else FINE)
    assert await world.run() is End.ROLLED_BACK
