"""What is done to the fleet, and when: drawn from a seed, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass

KILLS = ("worker", "worker", "worker", "api", "mcp", "redis", "postgres")
PAUSES = ("worker", "worker", "api", "mcp", "redis", "postgres")


@dataclass(frozen=True)
class Harm:
    """One blow."""

    at: float
    """Seconds after the first submission."""
    what: str
    """kill (and start again after `lasts`) | pause (SIGSTOP for `lasts`)."""
    whom: str
    which: int
    """Of several workers or orchestrators."""
    lasts: float

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.what} {self.whom}-{self.which} for {self.lasts:.1f} s"


def draw(seed: int, seconds: float, *, every: float, workers: int, apis: int, lease: float) -> list[Harm]:
    """Blows over `seconds`, one about every `every` seconds; a pause of a worker outlasts its lease as often as not."""
    dice = random.Random(seed)  # noqa: S311  a seed is the point
    blows: list[Harm] = []
    at = every / 2
    while at < seconds:
        what = dice.choices(("kill", "pause"), (2, 1))[0]
        whom = dice.choice(KILLS if what == "kill" else PAUSES)
        count = {"worker": workers, "api": apis}.get(whom, 1)
        lasts = dice.uniform(0.3, 2.0) if what == "kill" else dice.uniform(0.5, 2.5 * lease)
        if whom == "postgres":
            lasts = min(lasts, 3.0)
        blows.append(Harm(at, what, whom, dice.randrange(count), lasts))
        at += dice.uniform(0.5, 1.5) * every
    # Whatever the dice say, each kind happens: all of Redis lost, the database killed, a worker paused past its lease.
    sure = [
        ("kill", "redis", 0.5),
        ("kill", "postgres", 1.0),
        ("pause", "worker", 2 * lease),
        ("kill", "worker", 0.5),
        ("kill", "api", 0.5),
    ]
    for number, (what, whom, lasts) in enumerate(sure):
        blows.append(Harm((number + 1) * seconds / (len(sure) + 1), what, whom, 0, lasts))
    return sorted(blows, key=lambda blow: blow.at)
