"""`make chaos`: the whole run; exit code 0 only if nothing was lost, doubled or written out of turn."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import Self

import httpx
from aiohttp import web

from tests.chaos import checks, write_log
from tests.chaos.harm import Harmer
from tests.chaos.plan import draw
from tests.chaos.work import FULL, SHORT, Accepted, Size, bases, hand_in, make_bases, orders
from tests.fleet import Fleet
from tests.fleet.fleet import QUICK

WORKERS, APIS = 4, 2
_PAGE = 0.8
"""Seconds that a page of the site takes."""
_LIMITS = {
    "SHIELD_JOBS_MAX_PENDING": "100000",
    "SHIELD_JOBS_MAX_PENDING_PRINCIPAL": "100000",
    "SHIELD_JOBS_MAX_RUNNING_PRINCIPAL": "100",
    # Kills are this run's business, not the jobs' fault: what counts here is that nothing is lost however often it is begun.
    "SHIELD_JOBS_MAX_CRASHES": "1000",
    "SHIELD_LOG_LEVEL": "warning",
}


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--seed", type=int, default=None, help="repeat the run of this seed")
    parser.add_argument("--short", action="store_true", help="the form for CI: at most 90 s")
    parser.add_argument("--sabotage", action="store_true", help="break the fence on purpose: the run must fail")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    size = SHORT if options.short else FULL
    print(
        f"chaos: seed {seed}, {size.texts} texts in {size.bases} bases, {size.graph} with graph, {size.crawls} crawls, {WORKERS} workers",
        flush=True,
    )
    return asyncio.run(run(seed, size, sabotage=options.sabotage))


async def run(seed: int, size: Size, *, sabotage: bool) -> int:
    """One run; 0 if every count is as it must be (with sabotage: if it is not)."""
    began = time.monotonic()
    async with _Site(size) as site:
        environment = {**_LIMITS, "SHIELD_EGRESS_ALLOW": f"127.0.0.1/32:{site.port}"}
        if sabotage:
            broken = Path(__file__).parent / "broken"
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(broken), os.environ.get("PYTHONPATH"))))
        with Fleet(workers=WORKERS, apis=APIS, environment=environment) as fleet:
            print(f"fleet up after {time.monotonic() - began:.0f} s", flush=True)
            checks.watch(fleet.dsn)
            write_log.install(fleet.dsn)
            faults = await _storm(fleet, site, seed, size)
            faults += await _compare(fleet, site, size)
    print(f"chaos: seed {seed}, {time.monotonic() - began:.0f} s, {'ok' if not faults else 'FAILED: ' + '; '.join(faults)}", flush=True)
    if sabotage:
        print("sabotage: " + ("noticed, as it must be" if faults else "NOT noticed"))
        return 0 if faults else 1
    return 1 if faults else 0


async def _storm(fleet: Fleet, site: _Site, seed: int, size: Size) -> list[str]:
    """Hand everything in while the fleet is beaten; returns what is wrong afterwards."""
    await make_bases(fleet.api_url, bases(size))
    urls = [f"http://127.0.0.1:{fleet.port_of(member.name)}" for member in fleet.apis]
    accepted = Accepted()
    lease = float(QUICK["SHIELD_JOBS_LEASE"])
    plan = draw(seed, size.seconds, every=size.every, workers=WORKERS, apis=APIS, lease=lease)
    harmer = Harmer(fleet)
    try:
        async with asyncio.timeout(3 * size.seconds + 60), asyncio.TaskGroup() as tasks:
            tasks.create_task(harmer.carry_out(plan))
            tasks.create_task(hand_in(urls, fleet.mcp_url, orders(size, site.url), accepted))
    except TimeoutError:
        for member in fleet.members:
            print(f"--- {member.name}: {'alive' if member.alive else 'ended'}\n{member.tail(1500)}")
        return [f"only {len(accepted.ids)} jobs were accepted in time"]
    ids = list(accepted.ids.values())
    print(f"handed in: {len(ids)} accepted, answers on the way: {accepted.refusals}", flush=True)
    await _until_ended(fleet, ids, 300)
    found = checks.examine(fleet.dsn, ids)
    print("counts:", found, flush=True)
    must_be_zero = ("lost", "not ended", "ended other than once", "changed after the end", "fence not grown", "not completed")
    faults = [f"{name}: {found[name]}" for name in must_be_zero if found[name]]
    if accepted.twice:
        faults.append(f"keys with two jobs: {len(accepted.twice)}")
    outdated = write_log.violations(fleet.dsn)
    print(f"writes under an outdated fence or epoch: {len(outdated)}", flush=True)
    if outdated:
        faults.append(f"outdated writes: {outdated[:3]}")
    return faults


async def _compare(fleet: Fleet, site: _Site, size: Size) -> list[str]:
    """The same documents into sibling bases, undisturbed; every fingerprint must be equal."""
    sample = sorted({0, 1, size.bases // 2, size.bases - 1})
    names = [(f"calm-{name}", graph) for name, graph in bases(size) if not name.startswith("text-") or int(name[5:]) in sample]
    await make_bases(fleet.api_url, names)
    accepted = Accepted()
    await hand_in([fleet.api_url], None, orders(size, site.url, prefix="calm-", text_bases=sample), accepted)
    await _until_ended(fleet, list(accepted.ids.values()), 200)
    faults = []
    async with httpx.AsyncClient(base_url=fleet.api_url, timeout=60) as client:
        for calm, _ in names:
            stormy = calm.removeprefix("calm-")
            hashes = [(await client.get(f"/knowledge-bases/{name}/hash")).json() for name in (stormy, calm)]
            equal = hashes[0]["hash"] == hashes[1]["hash"]
            print(f"kb hash {stormy}: {'equal' if equal else 'DIFFERENT'}, {hashes[0]['documents']} documents", flush=True)
            if not equal:
                faults.append(f"kb hash of {stormy} differs: {hashes}")
    return faults


async def _until_ended(fleet: Fleet, ids: list[str], limit: float) -> None:
    until = time.monotonic() + limit
    told = 0.0
    while time.monotonic() < until:
        states = checks.unfinished(fleet.dsn, ids)
        waiting = {name: number for name, number in states.items() if name not in {"completed", "failed", "cancelled"}}
        if not waiting:
            return
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"waiting: {states}", flush=True)
        await asyncio.sleep(0.5)


class _Site:
    """As many small sites as there are crawls, each a chain of pages, on one port."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/site/{site}/{page}", self._page)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        await asyncio.sleep(_PAGE)  # a crawl outlasts a lease, so that taking one over is part of every run
        site, page = int(request.match_info["site"]), int(request.match_info["page"])
        links = "".join(f'<p><a href="/site/{site}/{2 * page + side}">next</a></p>' for side in (1, 2))
        said = (
            f"Page {page} of site {site} tells that the lighthouse keeper number {site * 100 + page} counted {page * 17} ships that night."
        )
        return web.Response(
            text=f"<html><head><title>Page {page}</title></head><body><h1>Page {page}</h1><p>{said}</p>{links}</body></html>",
            content_type="text/html",
        )


if __name__ == "__main__":
    sys.exit(main())
