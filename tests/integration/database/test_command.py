"""`shield db` in server mode: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.cli.app import run
from shield.database.migrate import HEAD, upgrade
from tests.integration.database.support import AT_0001, execute


@pytest.fixture
def server_mode(monkeypatch: pytest.MonkeyPatch, empty_dsn: str) -> str:
    """The settings of a fleet on an empty database."""
    variables = {"MODE": "server", "POSTGRES_DSN": empty_dsn, "REDIS_URL": "redis://127.0.0.1:1", "QDRANT_URL": "http://127.0.0.1:1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SHIELD_{name}", value)
    return empty_dsn


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """A command's exit code and all it printed."""
    code = run(["db", *arguments])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_a_database_is_looked_at_upgraded_saved_and_brought_back(
    server_mode: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    backup = str(tmp_path / "b")
    assert call(capsys, "backup", backup) == (75, _says("The database is empty: there is nothing to save.", "dependency.schema_behind"))
    code, out = call(capsys, "status")
    assert (code, "Schema empty" in out, "run `shield db upgrade`" in out) == (12, True, True)
    assert call(capsys, "upgrade") == (0, f"Upgraded from empty to {HEAD}.\n")
    assert call(capsys, "upgrade") == (0, f"The schema is {HEAD} already.\n")
    code, out = call(capsys, "status", "--json")
    facts = json.loads(out)
    assert (code, facts["ready"], facts["schema_version"], facts["pending"], facts["problem"]) == (0, True, HEAD, [], None)
    code, out = call(capsys, "backup", backup, "--json")
    assert (code, json.loads(out)["schema_version"]) == (0, HEAD)
    assert call(capsys, "backup", backup)[0] == 2
    code, out = call(capsys, "restore", backup)
    assert (code, "shield kb rebuild --all" in out) == (0, True)
    code, out = call(capsys, "restore", backup, "--check", "--json")
    assert (code, json.loads(out)["schema_version"]) == (0, HEAD)
    Path(backup).write_bytes(b"no backup at all, but long enough to look like one")
    assert call(capsys, "restore", backup)[0] == call(capsys, "restore", backup, "--check")[0] == 12


async def test_status_says_what_an_older_schema_lacks(server_mode: str, capsys: pytest.CaptureFixture[str], empty: AsyncEngine) -> None:
    import asyncio

    await upgrade(empty, "0001")
    await execute(empty, *AT_0001)
    code, out = await asyncio.to_thread(call, capsys, "status", "--json")
    assert (code, json.loads(out)["pending"]) == (12, ["0002", HEAD])
    code, out = await asyncio.to_thread(call, capsys, "upgrade", "--json")
    assert (code, json.loads(out)) == (0, {"before": "0001", "after": HEAD})


async def test_an_upgrade_saves_first_what_it_will_change_and_nothing_else(
    server_mode: str, capsys: pytest.CaptureFixture[str], empty: AsyncEngine, tmp_path: Path
) -> None:
    import asyncio

    await upgrade(empty, "0001")
    await execute(empty, *AT_0001)
    code, out = await asyncio.to_thread(call, capsys, "upgrade", "--backup", f"{tmp_path}/", "--json")
    [saved] = tmp_path.iterdir()
    assert (code, json.loads(out)) == (0, {"before": "0001", "after": HEAD, "backup": str(saved)})
    assert saved.name.startswith("shield-0001-")
    code, out = await asyncio.to_thread(call, capsys, "restore", str(saved), "--check", "--json")
    assert (code, json.loads(out)["schema_version"]) == (0, "0001")
    code, out = await asyncio.to_thread(call, capsys, "upgrade", "--backup", str(tmp_path))
    assert (code, out, len(list(tmp_path.iterdir()))) == (0, f"The schema is {HEAD} already.\n", 1)


async def test_without_the_backup_there_is_no_migration(
    server_mode: str, capsys: pytest.CaptureFixture[str], empty: AsyncEngine, tmp_path: Path
) -> None:
    import asyncio

    await upgrade(empty, "0001")
    await execute(empty, *AT_0001)
    code, out = await asyncio.to_thread(call, capsys, "upgrade", "--backup", str(tmp_path / "no such directory"))
    assert (code, "[backup.place" in out) == (2, True)
    code, out = await asyncio.to_thread(call, capsys, "status", "--json")
    assert json.loads(out)["schema_version"] == "0001"


def test_an_empty_database_is_not_saved(server_mode: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call(capsys, "upgrade", "--wait", "--backup", str(tmp_path)) == (0, f"Upgraded from empty to {HEAD}.\n")
    assert list(tmp_path.iterdir()) == []


def test_an_upgrade_waits_for_a_database_only_if_told_and_not_for_ever(
    server_mode: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIELD_POSTGRES_DSN", "postgresql://shield@127.0.0.1:9/shield")
    monkeypatch.setenv("SHIELD_POSTGRES_SCHEMA_WAIT", "0.3")
    for arguments in (["upgrade"], ["upgrade", "--wait"]):
        code, out = call(capsys, *arguments)
        assert (code, "[dependency.postgres" in out or "[dependency.database" in out) == (75, True), out


def _says(message: str, code: str) -> str:
    from shield.errors import leaf_errors

    return f"shield: {message} [{code}]\n  {leaf_errors()[code].advice}\n"
