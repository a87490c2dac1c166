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

import httpx
import pytest

from kind.prerequisites import Program
from shield.database.embedded import EmbeddedPostgres
from shield.errors import Exit
from tests.e2e.conftest import QUICK
from tests.fleet.members import free_port
from tests.peers.site import Site
from tests.programs import need_programs, need_root

UID = "3f1c0a52-0d55-4c4e-9a55-5a3f6f0d8c11"
TEAM = {"uid": UID, "principal": "k8s:team-a", "knowledge_base": "team-a--docs"}


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
    order = {**TEAM, "spec": {"type": "document", "text": "The valve opens at 7 bar.", "filename": "v.md"}}
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
        ({**TEAM, "knowledge_base": "default", "spec": {"type": "document", "text": "another's base"}}, Exit.REFUSED),
        ({**TEAM, "spec": {"type": "documents", "upload_id": "7d9f1c1e-0000-4000-8000-000000000001"}}, Exit.REFUSED),
        ({**TEAM, "spec": {"type": "documents", "path": "../.."}}, Exit.REFUSED),
        ({**TEAM, "spec": {"type": "documents", "path": "nowhere"}}, Exit.ALL_FAILED),
        ({**TEAM, "spec": {"type": "document", "path": "a.md"}}, Exit.REFUSED),
    ],
)
def test_each_refusal_has_its_exit_code(pod: Path, order: dict[str, Any] | str, code: Exit) -> None:
    source = pod / "source"
    source.mkdir()
    (source / "a.md").write_text("A file.")
    ended, said = run(pod, order, SHIELD_DOCUMENT_ROOT=str(source))
    assert ended == code, said


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
    code, said = await asyncio.to_thread(run, pod, {**order, "strict": True}, SHIELD_EGRESS_ALLOW=site.allow)
    assert code == Exit.PARTIAL, said
    code, said = await asyncio.to_thread(run, pod, order, "--strict", SHIELD_EGRESS_ALLOW=site.allow)
    assert code == Exit.PARTIAL, said
    code, said = await asyncio.to_thread(run, pod, order, SHIELD_EGRESS_ALLOW=site.allow)
    assert code == Exit.OK, said


async def test_a_pod_that_is_killed_costs_a_crash_and_the_next_one_goes_on(pod: Path, site: Site) -> None:
    """As after an OOM kill: the row is found, its lease is waited for, and what was fetched is not fetched again."""
    site.delay = lambda path: 0.2 if path.startswith("/page") else 0.0
    order = {**TEAM, "spec": {"type": "crawl", "url": site.url, "max_pages": 12, "max_depth": 10, "render": "http"}}
    port = free_port()
    process = begin(pod, order, SHIELD_EGRESS_ALLOW=site.allow, SHIELD_METRICS_PORT=str(port))
    until = time.monotonic() + 60
    while len(site.pages_log()) < 5 and time.monotonic() < until:
        await asyncio.sleep(0.05)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        assert "shield_crawl_pages_total" in (await http.get("/metrics")).text
    process.kill()
    process.communicate()
    code, said = await asyncio.to_thread(run, pod, order, SHIELD_EGRESS_ALLOW=site.allow)
    assert code == Exit.OK, said
    assert rows(pod, "SELECT status, crashes, errors FROM jobs") == [("completed", 1, 0)]
    assert rows(pod, "SELECT count(*) FROM job_outcomes WHERE counted") == [(12,)]
    assert len(site.pages_log()) - len(set(site.pages_log())) <= 8, "only pages in flight may be fetched twice"


def test_a_directory_is_ingested_and_keeps_its_budget(pod: Path) -> None:
    source = pod / "source" / "handbook"
    source.mkdir(parents=True)
    for number in range(3):
        (source / f"{number}.md").write_text(f"# Valve {number}\n\nThe valve number {number} opens at {number + 3} bar.")
    (source / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    (source / "out.md").symlink_to("/etc/passwd")
    spec = {"type": "documents", "path": "handbook", "exclude": ["2.md"], "metadata": {"team": "night"}}
    order = {**TEAM, "budget": {"tokens": 1000}, "strict": True, "spec": spec}
    code, said = run(pod, order, SHIELD_DOCUMENT_ROOT=str(pod / "source"))
    assert code == Exit.OK, said
    assert rows(pod, "SELECT source, status, code FROM job_outcomes ORDER BY number") == [
        ("file:handbook/0.md", "stored", None),
        ("file:handbook/1.md", "stored", None),
        ("file:handbook/picture.png", "skipped", "document.type_unsupported"),
    ]
    assert rows(pod, "SELECT status, outcome, budget_tokens FROM jobs") == [("completed", "complete", 1000)]


CONTAINER = """
set -e
mount --bind {pod}/passwd /etc/passwd
mount --bind {pod}/data /mnt
mount --bind {pod}/tmp /tmp
mount -o remount,bind,ro /
! touch /usr/written 2>/dev/null
exec unshare --user --map-user=10001 --map-group=10001 env -i {environment} {python} -m shield run-job --spec /mnt/spec.json
"""


@pytest.mark.kubernetes  # mounts as a container runtime does: root, and a kernel that lets it
@pytest.mark.parametrize(("passwd", "code"), [("shield:x:10001:10001::/var/lib/shield:/bin/false\n", Exit.OK), ("", Exit.USAGE)])
def test_a_container_needs_a_read_only_root_no_home_and_a_user_with_a_name(pod: Path, passwd: str, code: Exit) -> None:
    """The image's: user 10001, an empty environment, and nothing to write but the data directory and /tmp."""
    need_root("only root may make a root file system read-only")
    need_programs(Program("unshare", "util-linux"), Program("mount", "mount"))
    for name in ("data", "tmp"):
        (pod / name).mkdir()
    (pod / "passwd").write_text(passwd)
    order = {**TEAM, "spec": {"type": "document", "text": "The valve opens at 7 bar.", "filename": "v.md"}}
    (pod / "data" / "spec.json").write_text(json.dumps(order))
    given = {"PATH": "/usr/bin:/bin", "SHIELD_DATA_DIR": "/mnt/shield", **QUICK}
    script = CONTAINER.format(pod=pod, python=sys.executable, environment=" ".join(f"{name}={value}" for name, value in given.items()))
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    if code is Exit.USAGE:
        assert "needs a name for user 10001" in done.stderr
    assert {path.name for path in (pod / "tmp").iterdir()} <= {".lockfile"}, (
        "PostgreSQL's starter leaves an empty file, and nobody else anything"
    )


def test_sigterm_before_the_job_is_known_is_a_drain_too(pod: Path) -> None:
    """The first process of a container would not hear of it otherwise."""
    (pod / "spec.json").touch()
    script = (
        "import os, signal, sys, shield.app.run_job as module; from shield.cli import main\n"
        "module.read_order = lambda _: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"sys.argv = ['shield', 'run-job', '--spec', {str(pod / 'spec.json')!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **QUICK}, capture_output=True, timeout=60, check=False)
    assert done.returncode == Exit.DRAINED, done.stderr
