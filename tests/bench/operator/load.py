"""The load generator, a process of its own: IngestJobs at a steady rate, and when the Job of each appeared.

Arrivals are open: a create is sent when its time has come, whatever became of those before it. The time of an IngestJob begins when its create is
sent and ends when a watch of Jobs, in this same process, tells of a Job that it owns: so the API server's part, etcd's and the watch's are in it.

    python -m tests.bench.operator.load --url URL --keys DIR --namespace NAME --rate 100 --seconds 60

prints one JSON object. With `--rate 0` everything is created as fast as the API server takes it (`--count`), and with `--no-wait` nothing is waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp

from tests.kubernetes.api import administrator, path

_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_IN_FLIGHT = 200
_ANSWER = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True)
class Outcome:
    """What came of it; times in seconds."""

    offered: float
    """IngestJobs a second that were to be created; 0: as many as possible."""
    created: int
    seconds: float
    """From the first create to the last answer."""
    jobs: int
    """IngestJobs whose Job was seen."""
    twice: int
    """IngestJobs with more than one."""
    jobs_rate: float
    """Jobs a second, from the first to the last that was seen."""
    p50: float
    p99: float
    longest: float
    late: float
    """By how much the latest create was sent too late: the generator's own fault."""


@dataclass(frozen=True)
class Load:
    """What to do."""

    url: str
    keys: Path
    namespace: str
    rate: float
    count: int
    base: str
    spec: dict[str, object]
    wait: bool
    patience: float


def main() -> int:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--base", default="notes")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int, default=0, help="that many, instead of rate x seconds")
    parser.add_argument("--spec", default="{}", help="more of the spec, as JSON")
    parser.add_argument("--no-wait", action="store_true")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for Jobs after the last create")
    given = parser.parse_args()
    count = given.count or round(given.rate * given.seconds)
    load = Load(
        given.url, given.keys, given.namespace, given.rate, count, given.base, json.loads(given.spec), not given.no_wait, given.patience
    )
    print(json.dumps(asdict(asyncio.run(run(load)))))
    return 0


async def run(load: Load) -> Outcome:
    """Create, watch, count."""
    connector = aiohttp.TCPConnector(ssl=administrator(load.keys), limit=0)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session:
        generator = _Generator(load, session)
        watching = asyncio.create_task(generator.watch()) if load.wait else None
        if watching is not None:
            async with asyncio.timeout(30):
                await generator.watches.wait()
        try:
            return await generator.run()
        finally:
            if watching is not None:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching


class _Generator:
    def __init__(self, load: Load, session: aiohttp.ClientSession) -> None:
        self._load = load
        self._session = session
        self._sent: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self._jobs: dict[str, set[str]] = {}
        self._late = 0.0
        self._turns = asyncio.Semaphore(_IN_FLIGHT)
        self.watches = asyncio.Event()

    async def run(self) -> Outcome:
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._load.count):
                if self._load.rate:
                    due = began + number / self._load.rate
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    self._late = max(self._late, time.monotonic() - due)
                await self._turns.acquire()
                tasks.create_task(self._create(f"load-{number}"))
        took = time.monotonic() - began
        until = time.monotonic() + self._load.patience
        while self._load.wait and len(self._seen) < len(self._sent) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        times = sorted(self._seen[name] - self._sent[name] for name in self._seen.keys() & self._sent.keys())
        at = sorted(self._seen.values())
        return Outcome(
            offered=self._load.rate,
            created=len(self._sent),
            seconds=took,
            jobs=len(times),
            twice=sum(len(uids) > 1 for uids in self._jobs.values()),
            jobs_rate=(len(at) - 1) / (at[-1] - at[0]) if len(at) > 1 else 0.0,
            p50=quantile(times, 0.5),
            p99=quantile(times, 0.99),
            longest=times[-1] if times else 0.0,
            late=self._late,
        )

    async def _create(self, name: str) -> None:
        spec = {"source": {"web": {"url": "https://example.com/"}}, "knowledgeBase": self._load.base, **self._load.spec}
        body = {"apiVersion": "shield.hx-citadel.io/v1alpha1", "kind": "IngestJob", "metadata": {"name": name}, "spec": spec}
        url = self._load.url + path("ingestjobs", self._load.namespace)
        self._sent[name] = time.monotonic()
        try:
            async with self._session.post(url, json=body, timeout=_ANSWER) as answer:
                if answer.status != 201:
                    raise AssertionError(f"create {name}: {answer.status} {await answer.text()}")
                await answer.read()
        finally:
            self._turns.release()

    async def watch(self) -> None:
        """Note when each Job of this namespace appeared."""
        url = f"{self._load.url}{path('jobs', self._load.namespace)}?watch=1"
        async with self._session.get(url, headers={"Accept": _METADATA}, timeout=aiohttp.ClientTimeout(total=None)) as stream:
            self.watches.set()
            async for line in stream.content:
                event = json.loads(line)
                if event["type"] != "ADDED":
                    continue
                meta = event["object"]["metadata"]
                owner = next((one["name"] for one in meta.get("ownerReferences", ()) if one["kind"] == "IngestJob"), None)
                if owner is not None:
                    self._seen.setdefault(owner, time.monotonic())
                    self._jobs.setdefault(owner, set()).add(meta["uid"])


def quantile(ordered: list[float], share: float) -> float:
    """The smallest value that at least that share of all is not above; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


if __name__ == "__main__":
    sys.exit(main())
