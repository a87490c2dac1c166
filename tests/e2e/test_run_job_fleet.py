"""`shield run-job` beside a fleet with two idle workers: two pods of one IngestJob, a cancel, a pause, another namespace's things."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from shield.errors import Exit
from tests.fleet import Fleet
from tests.peers.site import Site

pytestmark = [pytest.mark.xdist_group("fleet"), pytest.mark.kubernetes]
BASE = "team-a--docs"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two idle workers, and the bases of two namespaces."""
    leases = {"SHIELD_JOBS_LEASE": "8", "SHIELD_JOBS_HEARTBEAT": "1"}  # held by a pod on a busy machine, too
    with Fleet(workers=2, mcp=False, environment=leases) as fleet, httpx.Client(base_url=fleet.api_url, timeout=30) as http:
        for namespace in ("team-a", "team-b"):
            made = http.put(f"/namespaces/{namespace}/knowledge-bases/{namespace}--docs", json={"graph": False})
            assert made.status_code == 200, made.text
        yield fleet


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site(pages=40) as site:
        site.delay = lambda path: 0.3 if path.startswith("/page") else 0.0
        yield site


class Pods:
    """The pods of one IngestJob."""

    def __init__(self, fleet: Fleet, site: Site, **order: Any) -> None:
        self.fleet = fleet
        self.uid = str(uuid4())
        spec = {"type": "crawl", "url": site.url, "max_pages": 15, "max_depth": 10, "render": "http"}
        order = {"uid": self.uid, "principal": "k8s:team-a", "knowledge_base": BASE, "spec": spec, **order}
        self._file = fleet.directory / f"{self.uid}.json"
        self._file.write_text(json.dumps(order))
        self._site = site

    def start(self) -> subprocess.Popen[str]:
        """One more pod."""
        data = self.fleet.directory / uuid4().hex[:8]
        data.mkdir(mode=0o700)
        given = {"SHIELD_DATA_DIR": str(data), "SHIELD_METRICS_PORT": "0", "SHIELD_EGRESS_ALLOW": self._site.allow}
        return subprocess.Popen(
            [sys.executable, "-m", "shield", "run-job", "--spec", str(self._file)],
            env={**os.environ, **self.fleet.environment, **given},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def working(self, pages: int = 3) -> None:
        """Come back when a pod is in the middle of it."""
        until = time.monotonic() + 60
        while len(self._site.pages_log()) < pages and time.monotonic() < until:
            await asyncio.sleep(0.05)
        assert len(self._site.pages_log()) >= pages

    async def holds(self, condition: str, limit: float = 30) -> None:
        """Wait until this is true of the row."""
        until = time.monotonic() + limit
        while not (found := self.row(condition)) and time.monotonic() < until:
            await asyncio.sleep(0.1)
        assert found, self.row("status, fence, crashes, lease_until")

    def row(self, what: str) -> Any:
        """Something of its row."""
        with psycopg.connect(self.fleet.dsn) as connection:
            found = connection.execute(f"SELECT {what} FROM jobs WHERE runner = %s".encode(), (f"ingestjob:{self.uid}",)).fetchone()
        return None if found is None else found[0] if len(found) == 1 else found


async def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = await asyncio.to_thread(process.communicate, timeout=90)
    return process.returncode, said


async def test_a_second_pod_waits_while_the_first_lives_and_both_say_how_it_ended(fleet: Fleet, site: Site) -> None:
    pods = Pods(fleet, site)
    first = pods.start()
    await pods.working()
    second = pods.start()
    for pod in (first, second):
        code, said = await ended(pod)
        assert code == Exit.OK, said
    assert pods.row("status, crashes, errors") == ("completed", 0, 0)
    assert len(site.pages_log()) == len(set(site.pages_log())) == 15


async def test_an_idle_fleet_leaves_a_killed_pods_row_alone_until_the_next_pod(fleet: Fleet, site: Site) -> None:
    pods = Pods(fleet, site)
    first = pods.start()
    await pods.working()
    first.kill()
    first.communicate()
    left = pods.row("status, fence, crashes, errors, worker")
    await pods.holds("lease_until < now() - interval '8 s'")  # a lease more, in which the fleet's workers looked and swept
    assert pods.row("status, fence, crashes, errors, worker") == left
    code, said = await ended(pods.start())
    assert code == Exit.OK, said
    assert pods.row("status, crashes, errors") == ("completed", 1, 0)


async def test_a_pod_that_was_paused_past_its_lease_has_lost_its_job(fleet: Fleet, site: Site) -> None:
    pods = Pods(fleet, site)
    first = pods.start()
    await pods.working()
    first.send_signal(signal.SIGSTOP)
    second = pods.start()
    code, said = await ended(second)
    assert code == Exit.OK, said
    first.send_signal(signal.SIGCONT)
    code, said = await ended(first)
    assert code == Exit.LEASE_LOST, said
    assert pods.row("status, crashes") == ("completed", 1)


async def test_a_cancel_by_the_operator_stops_the_pod_within_a_heartbeat(fleet: Fleet, site: Site) -> None:
    pods = Pods(fleet, site)
    pod = pods.start()
    await pods.working()
    async with httpx.AsyncClient(base_url=fleet.api_url, timeout=30) as http:
        [seen] = (await http.post("/ingest-jobs/progress", json={"uids": [pods.uid, str(uuid4())]})).json()["jobs"]
        assert (seen["status"], seen["attempts"]) == ("processing", 1)
        assert pods.uid in (await http.get("/ingest-jobs/active", params={"after": ""})).json()["uids"]
        assert (await http.post("/ingest-jobs/cancel", json={"uids": [pods.uid]})).json() == {"cancelled": 1}
        code, said = await ended(pod)
        assert code == Exit.REFUSED, said
        assert pods.row("status, error_code") == ("cancelled", "job.cancelled")
        code, said = await ended(pods.start())  # a pod that comes too late
        assert code == Exit.REFUSED, said
        assert pods.uid not in (await http.get("/ingest-jobs/active")).json()["uids"]


async def test_nothing_of_another_namespace_is_reached(fleet: Fleet, site: Site) -> None:
    async with httpx.AsyncClient(base_url=fleet.api_url, timeout=30) as http:
        upload = (await http.post("/uploads", files={"file": ("a.txt", b"somebody else's")})).json()["upload_id"]
    attacks: list[tuple[dict[str, Any], str]] = [
        ({"spec": {"type": "documents", "upload_id": upload}}, "document.upload_not_found"),
        ({"knowledge_base": "team-b--docs"}, "kb.not_found"),
        ({"knowledge_base": "default"}, "kb.not_found"),
        ({"spec": {"type": "documents", "path": "/etc"}}, "document.path_refused"),
    ]
    for order, refusal in attacks:
        pods = Pods(fleet, site, **order)
        code, said = await ended(pods.start())
        assert code == Exit.REFUSED, said
        assert refusal in said
        assert pods.row("id") is None
