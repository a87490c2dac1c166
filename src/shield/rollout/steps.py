"""The loop: give the canary its next share, watch it, go on or take everything back.

A share is kept for `hold` seconds of good verdicts. `tolerated` bad verdicts in a row end it, so that one noisy minute does not, and the first
if it is plain: more than half of the calls fail. No traffic is waited out, and so is a Prometheus that does not answer; what could not be judged within
`patience` is taken back. An error of Helm is taken back likewise. Taken back means: the revision from before the rollout, pods of the canary gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from shield.errors import RolloutBlind, RolloutRefused
from shield.rollout.journal import Journal
from shield.rollout.judge import Limits, Track, Verdict, Word, judge

PLAIN = 0.5
"""A share of failed calls that needs no second look."""


class Weights(Protocol):
    """The release, as Helm keeps it."""

    async def revision(self) -> int:
        """The one that is deployed."""
        ...

    async def set(self, values: dict[str, str | int], why: str) -> None:
        """Change values and wait until that is so."""
        ...

    async def roll_back(self, revision: int) -> None:
        """Back to a revision."""
        ...


class End(StrEnum):
    """How a rollout ended."""

    PROMOTED = "promoted"
    HELD = "held"
    """All steps are done, and the canary keeps its last share."""
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class Plan:
    """What to do, and how patiently."""

    image: dict[str, str] = field(default_factory=dict)
    """`tag` and `digest` of the canary's image."""
    steps: Sequence[int] = (10, 50, 100)
    """Per cent of traffic."""
    interval: float = 30
    """Seconds between two looks."""
    hold: float = 120
    """Seconds of good verdicts that a step takes."""
    tolerated: int = 2
    """Bad verdicts in a row that end it."""
    patience: float = 1800
    """Seconds that a step may take in all."""
    promote: bool = True
    """At the end, give the whole release the canary's image, and the canary nothing; without an image it keeps its last share."""
    limits: Limits = field(default_factory=Limits)


@dataclass
class Rollout:
    """One rollout."""

    plan: Plan
    helm: Weights
    look: Callable[[], Awaitable[tuple[Track, Track]]]
    lost: Callable[[], Awaitable[tuple[str, ...]]]
    """Golden questions that only stable answers."""
    journal: Journal
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = field(default=lambda: asyncio.get_running_loop().time())

    async def run(self) -> End:
        """Do it.

        Raises:
            RolloutRefused: Helm refused at the beginning, or refuses to take it back; the message says what stands.
        """
        before = await self.helm.revision()
        try:
            await self._begin()
            for weight in self.plan.steps:
                verdict = await self._step(weight)
                if verdict.word is not Word.GOOD:
                    return await self._back(before, verdict.reasons)
            return await self._finish()
        except RolloutRefused as error:
            return await self._back(before, (error.message,))
        except asyncio.CancelledError:  # Ctrl-C, SIGTERM: nobody would judge it any more
            return await self._back(before, ("interrupted",))

    async def _begin(self) -> None:
        values: dict[str, str | int] = {"canary.mode": "static", "canary.weight": 0}
        values |= {f"canary.image.{name}": value for name, value in self.plan.image.items()}
        named = " ".join(self.plan.image.values()) or "the same image"
        self.journal.note("begin", f"a canary of {named}, without traffic", image=self.plan.image)
        await self.helm.set(values, f"rollout: canary of {named}")
        if lost := await self.lost():
            raise RolloutRefused("; ".join(f"does not find what stable finds: {question}" for question in lost))

    async def _step(self, weight: int) -> Verdict:
        """Give it this share; the last verdict: good once it held, otherwise the reason to go back."""
        await self.helm.set({"canary.weight": weight}, f"rollout: {weight} %")
        self.journal.note("weight", f"{weight} % of traffic", weight=weight)
        began = self.clock()
        good_since, bad = None, 0
        while True:
            await self.sleep(self.plan.interval)
            verdict, canary = await self._judge()
            now = self.clock()
            self.journal.note("verdict", f"{weight} %: {verdict.word}: {'; '.join(verdict.reasons)}", weight=weight, word=verdict.word)
            bad = bad + 1 if verdict.word is Word.BAD else 0
            good_since = (good_since if good_since is not None else now) if verdict.word is Word.GOOD else None
            if bad >= self.plan.tolerated or (bad and (canary.errors or 0) > PLAIN):
                return verdict
            if good_since is not None and now - good_since >= self.plan.hold:
                return verdict
            if now - began >= self.plan.patience:
                return Verdict(Word.TOO_FEW, (f"not judged good within {self.plan.patience:.0f} s; at last: {'; '.join(verdict.reasons)}",))

    async def _judge(self) -> tuple[Verdict, Track]:
        try:
            stable, canary = await self.look()
        except RolloutBlind as error:
            return Verdict(Word.TOO_FEW, (error.message,)), Track()
        return judge(stable, canary, self.plan.limits, lost_questions=await self.lost()), canary

    async def _finish(self) -> End:
        if not (self.plan.promote and self.plan.image):
            self.journal.note("held", f"the canary keeps {self.plan.steps[-1]} %")
            return End.HELD
        # Two writes: stable takes the new image while it has no traffic, or little; only then does the canary lose its share.
        await self.helm.set({f"images.server.{name}": value for name, value in self.plan.image.items()}, "rollout: promoted")
        await self.helm.set({"canary.weight": 0}, "rollout: all traffic to the promoted servers")
        self.journal.note("promoted", "the release has the canary's image; the canary has no traffic")
        return End.PROMOTED

    async def _back(self, revision: int, reasons: tuple[str, ...]) -> End:
        self.journal.note("rollback", f"back to revision {revision}: {'; '.join(reasons)}", revision=revision, reasons=list(reasons))
        await self.helm.roll_back(revision)
        self.journal.note("rolled back", f"revision {revision} is deployed again", revision=revision)
        return End.ROLLED_BACK
