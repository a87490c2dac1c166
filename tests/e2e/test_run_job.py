"""`shield run-job` as a pod would run it: one file, one process, one exit code; SIGTERM hands the job back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from shield.database.embedded import EmbeddedPostgres
from shield.errors import Exit
from tests.e2e.conftest import QUICK
from tests.peers.site import Site

UID = "3f1c0a52-0d55-4c4e-9a55-5a3f6f0d8c11"


@pytest.fixture
def pod() -> Iterator[Path]:
    """An emptyDir: a data directory, and beside it the spec."""
    with tempfile.TemporaryDirectory(prefix="shield-pod-", ignore_cleanup_errors=True) as parent:
        Path(parent).chmod(0o711)
        yield Path(parent)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site(pages=30) as site:
        yield site


def begin(pod: Path, order: dict[str, Any] | str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the pod's command."""
    spec = pod / "spec.json"
    spec.write_text(order if isinstance(order, str) else json.dumps(order))
    return subprocess.Popen(
        [sys.executable, "-m", "shield", "run-job", "--spec", str(spec), *arguments],
        env={**os.environ, **QUICK, "SHIELD_DATA_DIR": str(pod / "data"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(pod: Path, order: dict[str, Any] | str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run it to its end; exit code and what it said."""
    process = begin(pod, order, *arguments, **environment)
    said, _ = process.communicate(timeout=90)
    return process.returncode, said


def rows(pod: Path, statement: str) -> list[tuple[Any, ...]]:
    """Look into the pod's database after its end."""
    import psycopg

    with EmbeddedPostgres(pod / "data") as server, psycopg.connect(server.dsn) as connection:
        return connection.execute(statement.encode()).fetchall()


def test_a_document_is_ingested_and_a_second_pod_finds_it_done(pod: Path) -> None:
    order = {"uid": UID, "principal": "k8s:team-a", "spec": {"type": "document", "text": "The valve opens at 7 bar.", "filename": "v.md"}}
    code, said = run(pod, order)
    assert code == Exit.OK, said
    code, said = run(pod, order)  # the pod was started again after its success was not seen
    assert code == Exit.OK, said
    found = rows(pod, "SELECT principal, runner, idempotency_key, status, fence FROM jobs")
    assert [(row[:4]) for row in found] == [("k8s:team-a", f"ingestjob:{UID}", UID, "completed")]
    assert rows(pod, "SELECT count(*) FROM documents WHERE live_revision IS NOT NULL") == [(1,)]


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ("{", Exit.BAD_SPEC),
        ({"uid": UID, "spec": {"type": "document"}, "volumes": []}, Exit.BAD_SPEC),
        ({"uid": UID, "knowledge_base": "nowhere", "spec": {"type": "document", "text": "x"}}, Exit.REFUSED),
        ({"uid": UID, "spec": {"type": "document", "content_base64": "AAAA", "filename": "empty.pdf"}}, Exit.ALL_FAILED),
    ],
)
def test_each_refusal_has_its_exit_code(pod: Path, order: dict[str, Any] | str, code: Exit) -> None:
    assert run(pod, order)[0] == code


async def test_sigterm_hands_the_crawl_back_and_the_next_pod_goes_on(pod: Path, site: Site) -> None:
    site.delay = lambda path: 0.2 if path.startswith("/page") else 0.0
    order = {"uid": UID, "spec": {"type": "crawl", "url": site.url, "max_pages": 20, "max_depth": 10, "render": "http"}}
    process = begin(pod, order, SHIELD_EGRESS_ALLOW=site.allow)
    until = time.monotonic() + 60
    while len(site.pages_log()) < 6 and time.monotonic() < until:
        await asyncio.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = await asyncio.to_thread(process.communicate, timeout=30)
    assert process.returncode == Exit.DRAINED, said
    assert rows(pod, "SELECT status, worker IS NULL, crashes, errors FROM jobs") == [("pending", True, 0, 0)]
    code, said = await asyncio.to_thread(run, pod, order, SHIELD_EGRESS_ALLOW=site.allow)
    assert code == Exit.OK, said
    assert rows(pod, "SELECT status, crashes, errors FROM jobs") == [("completed", 0, 0)]
    assert rows(pod, "SELECT count(*) FROM job_outcomes WHERE counted") == [(20,)]
    requested = site.pages_log()
    assert len(requested) - len(set(requested)) <= 8, "only pages in flight may be fetched twice"


async def test_some_failed_pages_are_a_success_unless_strict(pod: Path, site: Site) -> None:
    async def gone(_request: object) -> Any:
        from aiohttp import web

        return web.Response(status=410)

    site.route("/page/1", gone)
    order = {"uid": UID, "spec": {"type": "crawl", "url": site.url, "max_pages": 3, "max_depth": 1, "render": "http"}}
    code, said = await asyncio.to_thread(run, pod, order, "--strict", SHIELD_EGRESS_ALLOW=site.allow)
    assert code == Exit.PARTIAL, said
    code, said = await asyncio.to_thread(run, pod, order, SHIELD_EGRESS_ALLOW=site.allow)
    assert code == Exit.OK, said
