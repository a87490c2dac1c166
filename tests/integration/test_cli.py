"""The command line against a running server: every command, its JSON, its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shield.app.embedded import EmbeddedApp
from shield.cli.app import run
from shield.settings import Settings
from tests.integration.conftest import Running
from tests.peers.site import Site

Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command on the test's data directory: (exit code, what it printed)."""
    monkeypatch.setenv("SHIELD_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("COLUMNS", "200")

    async def call(*arguments: str) -> tuple[int, str]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = await asyncio.to_thread(run, list(arguments))
        return code, out.getvalue()

    return call


async def given_up(app: EmbeddedApp, job_id: str) -> None:
    """Let a failed job have been given up after its last retry; an ended job never changes, so its guard is off meanwhile."""
    async with app.shield.parts.engine.begin() as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text("UPDATE jobs SET error_code = 'job.retries_exhausted' WHERE id = :id"), {"id": job_id})


async def parsed(command: Command, *arguments: str, code: int = 0) -> Any:
    status, out = await command(*arguments, "--json")
    assert status == code, out
    return json.loads(out[out.index("{") if "{" in out else 0 :] if not out.startswith("[") else out)


async def test_a_document_is_ingested_found_asked_read_and_deleted(running: Running, command: Command, tmp_path: Path) -> None:
    file = tmp_path / "tide.md"
    file.write_text("# Tide table\n\nThe lowest tide of the year falls on the ninth of March before sunrise.\n")
    async with running():
        code, out = await command("ingest", str(file), "--meta", "kind=table")
        assert code == 0, out
        assert "completed" in out
        answer = await parsed(command, "ask", "When is the lowest tide of the year?")
        assert "ninth of March" in answer["answer"]
        code, out = await command("ask", "When is the lowest tide of the year?")
        assert "[1]" in out
        code, out = await command("find", "lowest tide", "--filter", "metadata.kind=table")
        assert "Tide table" in out
        [document] = (await parsed(command, "docs", "list"))["documents"]
        assert document["source"] == f"file:{file}"
        code, out = await command("docs", "show", document["document_id"])
        assert "before sunrise" in out
        code, out = await command("docs", "delete", document["document_id"], "--yes")
        assert (code, "'hits': 0" in out) == (0, True), out
        code, out = await command("ask", "When is the lowest tide of the year?")
        assert "Nothing stored" in out


async def test_a_crawl_is_followed_listed_and_judged(running: Running, command: Command) -> None:
    async with Site(pages=3) as site, running(egress={"allow": (site.allow,)}) as app:
        site.put("/page/1", '<h1>One</h1><p>Enough words to make this a page of its own.</p><a href="/nowhere">gone</a>')
        job = await parsed(command, "crawl", site.url, "--strict", code=20)
        assert (job["status"], job["outcome"]) == ("completed", "partial")
        code, out = await command("jobs", "show", job["job_id"])
        assert "page.not_found" in out
        code, out = await command("jobs", "list")
        assert job["job_id"] in out
        assert (await command("jobs", "watch", job["job_id"]))[0] == 0
        assert (await parsed(command, "jobs", "watch", job["job_id"], "--strict", code=20))["outcome"] == "partial"
        code, out = await command("jobs", "cancel", job["job_id"])
        assert (code, "job.ended" in out) == (12, True)
        again = await parsed(command, "jobs", "retry", job["job_id"])
        assert again["retry_of"] == job["job_id"]
        code, out = await command("crawl", f"{site.url}/nowhere", "--json")
        assert code == 12, out
        await given_up(app, job_id := (await parsed(command, "crawl", f"{site.url}/nowhere", code=12))["job_id"])
        assert [dead["job_id"] for dead in (await parsed(command, "jobs", "list", "--dead"))["jobs"]] == [job_id]
        retried = await parsed(command, "jobs", "retry", "--all-dead")
        assert [job["retry_of"] for job in retried["retried"]] == [job_id]
        code, out = await command("jobs", "retry", "--all-dead")  # once is enough
        assert (code, "0 jobs retried" in out) == (0, True), out
        accepted = await parsed(command, "crawl", site.url, "--no-wait")
        assert accepted["status"] in {"pending", "processing"}


async def test_knowledge_bases_are_made_hashed_and_removed(running: Running, command: Command) -> None:
    async with running():
        assert (await command("kb", "create", "handbook", "--description", "ours", "--no-graph"))[0] == 0
        code, out = await command("kb", "create", "Hand Book")
        assert (code, "kb.name_invalid" in out) == (2, True), out
        assert "handbook" in (await command("kb", "list"))[1]
        code, out = await command("kb", "collections", "handbook")
        assert (code, "all-minilm-l6-v2" in out) == (0, True), out
        assert (await parsed(command, "kb", "check", "handbook"))["ok"]
        assert "live" in (await command("kb", "check", "handbook"))[1]
        code, out = await command("kb", "rebuild", "handbook", "--fresh")
        assert (code, "completed" in out) == (0, True), out
        code, out = await command("kb", "reindex", "handbook", "--model", "all-minilm-l6-v2", "--dim", "384")
        assert (code, "kb.reindex_refused" in out) == (12, True), out
        for change in ("flip", "rollback"):
            code, out = await command("kb", change, "handbook")
            assert (code, "kb.nothing_to_flip" in out) == (12, True), out
        assert (await command("kb", "discard", "handbook", "--yes"))[0] == 0
        one, two = await command("kb", "hash", "handbook"), await command("kb", "hash", "default")
        assert len(one[1].strip()) == 64
        assert two[0] == 0
        assert (await command("kb", "delete", "handbook", "--yes"))[0] == 0
        assert "handbook" not in (await command("kb", "list"))[1]
        code, out = await command("kb", "delete", "default", "--yes")
        assert (code, "kb.protected" in out) == (12, True), out


async def test_doctor_and_config_say_what_is(running: Running, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELD_LLM_API_KEY", "sk-very-secret")
    code, out = await command("config")
    assert code == 0
    assert "SHIELD_EGRESS_PORTS" in out
    assert "sk-very-secret" not in out
    async with running() as app:
        findings = {finding["what"]: finding for finding in json.loads((await command("doctor", "--json"))[1])}
    assert app.info.url in findings["Server"]["detail"]
    assert {finding["state"] for finding in findings.values()} <= {"ok", "optional"}
    assert all(finding["remedy"] for finding in findings.values() if finding["state"] == "optional")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["frobnicate"], 2, "No such command"),
        (["ingest", "/no/such/file.pdf"], 2, "neither a file nor"),
        (["crawl", "https://example.com", "--max-pages", "0"], 2, "request.invalid"),
        (["crawl", "https://example.com", "--budget", "0"], 2, "request.invalid"),
        (["ask", "Who?", "--mode", "psychic"], 2, "request.invalid"),
        (["find", "x", "--filter", "kind"], 2, "field=value"),
        (["mcp"], 2, "--stdio"),
        (["jobs", "retry"], 2, "--all-dead"),
    ],
)
async def test_a_wrong_command_line_says_what_is_wrong(command: Command, arguments: list[str], code: int, says: str) -> None:
    status, out = await command(*arguments)
    assert status == code, out
    assert says in out


async def test_a_wrong_setting_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELD_JOBS_LEASE", "soon")
    code, out = await command("kb", "list")
    assert (code, "SHIELD_JOBS_LEASE" in out, "config.invalid" in out) == (2, True, True)


def test_the_shell_completes_commands() -> None:
    environment = {**os.environ, "_SHIELD_COMPLETE": "complete_bash", "COMP_WORDS": "shield cra", "COMP_CWORD": "1"}
    result = subprocess.run([sys.executable, "-m", "shield"], env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["crawl"]


def test_help_imports_nothing_heavy() -> None:
    probe = "import sys; from shield.cli.app import run; run(['--help']); print(sorted(set(sys.modules) & {'pydantic', 'fastapi', 'sqlalchemy', 'numpy'}))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "crawl" in result.stdout
    assert result.stdout.strip().endswith("[]")
