"""The measurements: latency and rate of CR → Job, the whole life with KWOK, ten thousand at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kind.control_plane import ControlPlane
from tests.bench.operator.bed import Bed, bed, busiest, shares
from tests.bench.operator.load import Outcome
from tests.fleet import Fleet
from tests.kubernetes.api import path
from tests.kubernetes.api_proxy import our_writes

AIMS = {10: 0.1, 50: 0.25, 100: 1.0}
"""p99 in seconds by IngestJobs a second."""
RATE_AIM, WRITES_AIM, MEMORY_AIM, START_AIM = 100.0, 8.0, 300.0, 30.0
SUSTAINED = 1.0
"""A rate is sustained if p99 stays below this, in seconds."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    figure: str
    aim: str = ""
    met: bool | None = None
    """None: there is no aim."""
    with_: str = ""


@dataclass
class Sizes:
    """How long and how many."""

    seconds: float = 60
    rates: Sequence[int] = (10, 50, 100)
    ramp: Sequence[int] = (125, 150, 200, 250, 300)
    ramp_seconds: float = 20
    lifecycle: int = 1000
    counted: int = 50
    many: int = 10_000


async def latency(plane: ControlPlane, fleet: Fleet, directory: Path, sizes: Sizes, profile: Path | None = None) -> list[Line]:
    """(a) CR → Job at given rates, then at rising ones until it does not keep up."""
    lines: list[Line] = []
    best, why = 0, ""
    async with bed(plane, fleet, directory / "latency", profile=profile, job_rate="1000", job_burst="1000") as it:
        for rate in sizes.rates:
            outcome, share = await _at(it, rate, sizes.seconds)
            aim = AIMS.get(rate)
            met = None if aim is None else _whole(outcome) and outcome.p99 < aim
            figure = f"p50 {_ms(outcome.p50)}, p99 {_ms(outcome.p99)}, longest {_ms(outcome.longest)}"
            lines.append(
                Line(
                    f"CR → Job at {rate}/s for {sizes.seconds:.0f} s",
                    figure,
                    f"p99 < {_ms(aim)}" if aim else "",
                    met,
                    busiest(share) + _fault(outcome),
                )
            )
            if not _whole(outcome):
                return lines
            if _sustained(outcome):
                best = max(best, rate)
            else:
                why = why or _overrun(outcome, share)
        for rate in sizes.ramp if not why else ():
            outcome, share = await _at(it, rate, sizes.ramp_seconds)
            if not _sustained(outcome):
                why = _overrun(outcome, share)
                break
            best = rate
        remark = why or "nothing faster was tried"
        lines.append(Line("highest sustained rate", f"{best}/s", f"≥ {RATE_AIM:.0f}/s", best >= RATE_AIM, remark))
    return lines


async def lifecycle(plane: ControlPlane, fleet: Fleet, directory: Path, sizes: Sizes) -> list[Line]:
    """(b) From the CR to its end and its deletion, with KWOK playing the nodes."""
    lines = []
    async with bed(plane, fleet, directory / "counted", counted=True, kwok=True, job_retention="5") as it:
        await it.namespace("counted")
        if it.door is None:
            raise AssertionError("nobody counts")
        it.door.writes.clear()
        await it.load("counted", rate=5, count=sizes.counted, ttlSecondsAfterFinished=15)
        await _until_gone(it, "counted", 300)
        await it.replica.idle()
        counts = {sort: number for sort, number in our_writes(it.door.writes).items() if "knowledgebases" not in sort}
        each = sum(counts.values()) / sizes.counted
        detail = ", ".join(f"{sort} {number / sizes.counted:.2f}" for sort, number in sorted(counts.items()))
        lines.append(
            Line("our API writes an IngestJob, its deletion included", f"{each:.2f}", f"≤ {WRITES_AIM:.0f}", each <= WRITES_AIM, detail)
        )
    async with bed(plane, fleet, directory / "lifecycle", kwok=True) as it:
        await it.namespace("lifecycle")
        before, began = it.processor(), time.monotonic()
        outcome = await it.load("lifecycle", rate=0, count=sizes.lifecycle)
        completed = await _until_complete(it, "lifecycle", sizes.lifecycle, began + 600)
        took = time.monotonic() - began
        share = shares(before, it.processor(), took)
        figure = f"{completed / took:.0f}/s ({completed} in {took:.0f} s; Jobs made at {outcome.jobs_rate:.0f}/s)"
        late = outcome.created - outcome.jobs if completed == sizes.lifecycle else 0  # the generator had stopped looking, and yet they came
        remarks = busiest(share, 6) + (f"; {late} Jobs came more than a minute after the last create" if late else _fault(outcome))
        lines.append(
            Line(
                "whole life, CR → Complete, pods by KWOK",
                figure,
                "",
                completed == sizes.lifecycle or None,
                remarks,
            )
        )
    return lines


async def many(plane: ControlPlane, fleet: Fleet, directory: Path, sizes: Sizes, profile: Path | None = None) -> list[Line]:
    """(c) A backlog worked off as fast as it goes; then memory, and a start with everything there."""
    async with bed(plane, fleet, directory / "many", profile=profile, job_rate="1000", job_burst="1000") as it:
        await it.namespace("many")
        there = len(await it.api.list("jobs"))
        await it.replica.down()
        await it.load("many", rate=0, count=sizes.many, wait=False)
        before, began = it.processor(), time.monotonic()
        it.replica.up()
        await it.replica.leads(600)
        lines = [await _backlog(it, there + sizes.many, sizes.many, before, began)]
        await it.replica.idle(600)
        cold = await it.restart()
        memory = it.memory()
        objects = f"{there + sizes.many} IngestJobs and as many Jobs"
        lines.append(
            Line(
                f"cold start with {objects}",
                f"{cold:.1f} s",
                f"< {START_AIM:.0f} s",
                cold < START_AIM,
                "process start → leads, every key reconciled",
            )
        )
        lines.append(
            Line(f"memory with {objects}", f"{memory:.0f} MiB RSS", f"< {MEMORY_AIM:.0f} MiB", memory < MEMORY_AIM, "after the cold start")
        )
    return lines


async def _backlog(it: Bed, wanted: int, made: int, before: dict[str, float], began: float) -> Line:
    first = time.monotonic()
    while (there := await _count(it, "jobs")) < wanted:
        if time.monotonic() > began + 900:
            break
        await asyncio.sleep(0.5)
    took = time.monotonic() - first
    share = shares(before, it.processor(), time.monotonic() - began)
    figure = f"{(made - (wanted - there)) / took:.0f} Jobs/s"
    return Line(f"a backlog of {made} IngestJobs worked off", figure, "", None, busiest(share))


async def _at(it: Bed, rate: int, seconds: float) -> tuple[Outcome, dict[str, float]]:
    namespace = f"rate-{rate}"
    await it.namespace(namespace)
    await it.replica.idle()
    before, began = it.processor(), time.monotonic()
    outcome = await it.load(namespace, rate=rate, seconds=seconds)
    share = shares(before, it.processor(), time.monotonic() - began)
    used = it.processor()
    each = (used["operator"] - before["operator"]) / max(1, outcome.created)
    print(f"  {rate}/s: {json.dumps(outcome.__dict__)}; {busiest(share, 6)}; operator {each * 1000:.1f} ms each", flush=True)
    return outcome, share


async def _until_gone(it: Bed, namespace: str, limit: float) -> None:
    async with asyncio.timeout(limit):
        while await it.api.list("ingestjobs", namespace) or await it.api.list("jobs", namespace):
            await asyncio.sleep(1)


async def _until_complete(it: Bed, namespace: str, wanted: int, until: float) -> int:
    complete: set[str] = set()

    async def watch() -> None:
        async for _, obj in it.api.watch("ingestjobs", namespace):
            conditions = obj.get("status", {}).get("conditions", ())
            if any(one["type"] == "Complete" and one["status"] == "True" for one in conditions):
                complete.add(obj["metadata"]["uid"])
                if len(complete) == wanted:
                    return

    with suppress(TimeoutError):
        async with asyncio.timeout(max(1.0, until - time.monotonic())):
            await watch()
    return len(complete)


async def _count(it: Bed, plural: str) -> int:
    listed = await it.api.call("GET", f"{path(plural)}?limit=1")
    return len(listed["items"]) + int(listed["metadata"].get("remainingItemCount") or 0)


def _sustained(outcome: Outcome) -> bool:
    return _whole(outcome) and outcome.p99 <= SUSTAINED and outcome.jobs_rate >= 0.95 * outcome.offered


def _overrun(outcome: Outcome, share: dict[str, float]) -> str:
    return f"at {outcome.offered:.0f}/s: {outcome.jobs_rate:.0f} Jobs/s, p99 {_ms(outcome.p99)}; {busiest(share)}"


def _whole(outcome: Outcome) -> bool:
    """Each has its one Job."""
    return outcome.jobs == outcome.created and not outcome.twice


def _fault(outcome: Outcome) -> str:
    faults = []
    if outcome.jobs < outcome.created:
        faults.append(f"{outcome.created - outcome.jobs} of {outcome.created} without a Job")
    if outcome.twice:
        faults.append(f"{outcome.twice} with two")
    if outcome.late > 0.1:
        faults.append(f"the generator was up to {_ms(outcome.late)} late")
    return "".join(f"; {fault}" for fault in faults)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"
