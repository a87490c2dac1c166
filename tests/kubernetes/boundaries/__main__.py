"""`make proof-boundaries`: all cases, counted; exit code 0 only if nothing was lost, done twice, or told wrongly."""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from kind.control_plane import ControlPlane
from tests.fleet import Fleet
from tests.kubernetes.boundaries import checks, faults, harm, kills, leadership
from tests.kubernetes.boundaries.checks import Found
from tests.kubernetes.boundaries.quiet import unchanged
from tests.kubernetes.boundaries.stage import Case, Stage
from tests.kubernetes.boundaries.world import FLEET, WORKERS, World, world
from tests.kubernetes.replica import end_in_order, install

_QUIET = Case("reconciled-twice", unchanged)
_SABOTAGES = {
    "names": "^DUPLICATE: ",
    "cancel": "^LOST: .*: its rows are ",
    "owner": "^LOST: .* JobNameConflict of one",
}
"""Ways to break the operator on purpose, and the finding (a regular expression) by which each is noticed: anything else that goes wrong is no notice."""
_AGREES = 75.0
"""Seconds within which the database agrees with what the API server says: an operator that was killed before it cancelled a row does so in a sweep."""


@dataclass(frozen=True)
class Manner:
    """How to run."""

    parallel: int
    patience: float
    sabotage: str


@dataclass
class Tally:
    """How it went."""

    lost: int = 0
    duplicate: int = 0
    failed: list[str] = field(default_factory=list)
    passed: int = 0
    faults: list[str] = field(default_factory=list)
    """Everything that was found."""


def noticed(sabotage: str, faults: Sequence[str]) -> bool:
    """The run found what this sabotage does."""
    return any(re.search(_SABOTAGES[sabotage], fault) for fault in faults)


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="make proof-boundaries")
    parser.add_argument("--only", default="", help="a regular expression that occurs in the names of the cases to run")
    parser.add_argument("--seed", type=int, default=None, help="repeat the order of this seed")
    parser.add_argument("--smoke", action="store_true", help="the form for CI")
    parser.add_argument("--sabotage", choices=_SABOTAGES, default="", help="break the operator on purpose: the run must fail")
    parser.add_argument("--parallel", type=int, default=6, help="cases at the same time")
    parser.add_argument("--patience", type=float, default=120, help="seconds that one step of a case may take; more on a busy machine")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--keep", type=Path, default=None, help="leave logs and data in this directory")
    options = parser.parse_args()
    cases = [*kills.cases(), *faults.cases(), *harm.cases(), *leadership.cases()]
    chosen = [case for case in cases if re.search(options.only, case.name) and (case.smoke or not options.smoke)]
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    end_in_order()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    random.Random(seed).shuffle(chosen)  # noqa: S311  a seed is the point
    print(f"boundaries: seed {seed}, {len(chosen)} cases", flush=True)
    directory = options.keep or Path(tempfile.mkdtemp(prefix="shield-boundaries-"))
    try:
        return _run(chosen, directory, Manner(options.parallel, options.patience, options.sabotage))
    finally:
        if options.keep is None:
            shutil.rmtree(directory, ignore_errors=True)


def _run(cases: list[Case], directory: Path, manner: Manner) -> int:
    began = time.monotonic()
    directory.mkdir(parents=True, exist_ok=True)
    # Both die with the thread that started them, so that is this one.
    with ControlPlane(directory / "plane", scheduler=True) as plane, Fleet(workers=WORKERS, mcp=False, environment=FLEET) as fleet:
        install(plane)
        checks.watch_claims(fleet.dsn)
        print(f"control plane and fleet up after {time.monotonic() - began:.0f} s", flush=True)
        tally = asyncio.run(_play_all(cases, plane, fleet, directory, manner))
        claimed, claims = checks.fleet_claims(fleet.dsn)
        idle = checks.idle_workers(fleet.dsn)
    print(f"the fleet's {idle} idle workers claimed {claimed} rows of pods, of {claims} claims in all")
    print(f"boundaries {tally.passed}/{tally.passed + len(tally.failed)}, lost {tally.lost}, duplicate {tally.duplicate}")
    good = not tally.failed and not claimed and idle == WORKERS and bool(claims)
    print(f"{time.monotonic() - began:.0f} s, {'ok' if good else 'FAILED: ' + ', '.join(tally.failed)}", flush=True)
    if manner.sabotage:
        seen = noticed(manner.sabotage, tally.faults)
        print(f"sabotage {manner.sabotage}: {'noticed, as it must be' if seen else 'NOT noticed'}")
        return 0 if seen else 1
    return 0 if good else 1


async def _play_all(cases: list[Case], plane: ControlPlane, fleet: Fleet, directory: Path, manner: Manner) -> Tally:
    tally = Tally()
    places = asyncio.Semaphore(manner.parallel)

    async def play(case: Case) -> None:
        async with places:
            await _play(case, there, tally)

    async def one_by_one(others: list[Case]) -> None:
        for case in others:
            await _play(case, there, tally)

    async with world(plane, fleet, directory, patience=manner.patience, sabotage=manner.sabotage) as there:
        for case in cases:
            await there.namespace(case.name)
        async with asyncio.TaskGroup() as tasks:
            for case in cases:
                if not case.alone and not case.hardy:
                    tasks.create_task(play(case))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one_by_one([case for case in cases if case.alone]))
            for case in cases:
                if case.hardy:
                    tasks.create_task(play(case))
        await there.namespace(_QUIET.name)
        await _play(_QUIET, there, tally)
    return tally


async def _play(case: Case, there: World, tally: Tally) -> None:
    began = time.monotonic()
    stage = Stage(there, case.name)
    found = Found()
    try:
        await case.play(stage)
        await stage.settle()
        while (found := await _examined(stage)).all and time.monotonic() < stage.settled + _AGREES:
            await asyncio.sleep(0.5)
    except AssertionError as error:  # it did not come to its end: what was done twice until then counts all the same
        found = Found(lost=[str(error)], duplicate=(await _examined(stage)).duplicate)
    except (
        TimeoutError,
        OSError,
        aiohttp.ClientError,
    ) as error:  # of this process's own calls: says nothing about the operator, but nothing is proven
        found.wrong.append(f"{case.name} could not be played: {error!r}")
    finally:
        await stage.end()
    tally.lost += len(found.lost)
    tally.duplicate += len(found.duplicate)
    tally.faults += found.all
    if found.all:
        tally.failed.append(case.name)
    else:
        tally.passed += 1
    said = "".join(f", {note}" for note in stage.notes)
    print(f"{'FAILED' if found.all else 'ok':6}  {case.name}  {time.monotonic() - began:.1f} s{said}", flush=True)
    for fault in found.all:
        print(f"        {fault}", flush=True)


async def _examined(stage: Stage) -> Found:
    try:
        return await asyncio.to_thread(checks.examine, stage)
    except AssertionError as error:  # of one of its IngestJobs nothing was ever heard
        return Found(lost=[str(error)])


if __name__ == "__main__":
    sys.exit(main())
