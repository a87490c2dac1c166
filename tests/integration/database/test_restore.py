"""Restoring: all of a backup or nothing of it, and nobody who worked for the old database can write into the new one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.backup import check, restore
from shield.database.backup.archive import Header
from shield.database.backup.renewal import LEAP
from shield.database.backup.structure import TableDef
from shield.database.engine import create_engine
from shield.database.migrate import HEAD, current, upgrade
from shield.errors import BackupDamaged, BackupTooNew, DatabaseBusy, DatabaseNotEmpty, DatabaseUnsuitable, SchemaBehind
from shield.jobs.model import JobKind, WorkerId
from shield.jobs.repository import JobRepository
from shield.settings import load
from tests.integration.database.support import LIMITS, Shelf, admin, bring_back, closed, contents, execute, one, opened, save


class TestAllOrNothing:
    async def test_a_damaged_or_short_backup_changes_nothing(self, full: AsyncEngine, dsn: str, engine: AsyncEngine) -> None:
        shelf, _ = await save(dsn, part=300)
        before = await contents(engine)
        middle = len(shelf.data) // 2
        short, wrong = shelf.data[:-1], shelf.data[:middle] + b"\0" + shelf.data[middle + 1 :]
        for damaged in (short, wrong):
            with pytest.raises(BackupDamaged):
                await bring_back(engine, Shelf(damaged), force=True)
        for damaged in (short, wrong, shelf.data[:middle], shelf.data[:-40] + b"x" + shelf.data[-39:], shelf.data + b"\0"):
            with pytest.raises(BackupDamaged):
                await check(Shelf(damaged).read())
        assert await contents(engine) == before

    async def test_a_backup_that_lies_changes_nothing(self, full: AsyncEngine, dsn: str, empty: AsyncEngine) -> None:
        shelf, _ = await save(dsn)
        header, parts, rows = await opened(shelf)
        tables = {table.name: number for number, table in enumerate(header.tables)}
        pairs = list(zip(header.tables, parts, strict=True))
        jobs = parts[tables["jobs"]]
        lies = {
            "more rows than there are": (header, parts, {**rows, "jobs": 99}),
            "a table that is none": (
                header.model_copy(update={"tables": (*header.tables[:-1], renamed(header, "pg_authid"))}),
                parts,
                rows,
            ),
            "a column that is none": (
                header.model_copy(update={"tables": tuple(t.model_copy(update={"columns": (*t.columns[:-1], "evil")}) for t, _ in pairs)}),
                parts,
                rows,
            ),
            "a schema that never was": (header.model_copy(update={"schema_version": "0000"}), parts, rows),
            "what is no row": (header, [b"only one field\n" if part is jobs else part for part in parts], rows),
            "a sequence that is a table": (
                header.model_copy(update={"sequences": (header.sequences[0].model_copy(update={"name": "jobs"}),)}),
                parts,
                rows,
            ),
        }
        for lie, told in lies.items():
            with pytest.raises(BackupDamaged):
                await bring_back(empty, closed(*told))
            assert await current(empty) is None, lie
        await bring_back(empty, closed(header, parts, rows))

    async def test_what_is_newer_than_this_program_is_refused(self, full: AsyncEngine, dsn: str, empty: AsyncEngine) -> None:
        shelf, _ = await save(dsn)
        header, parts, rows = await opened(shelf)
        newer = closed(header.model_copy(update={"schema_version": "0999", "app_version": "9.0.0"}), parts, rows)
        with pytest.raises(BackupTooNew, match=r"Shield 9\.0\.0 with schema 0999"):
            await bring_back(empty, newer)
        with pytest.raises(BackupTooNew):
            await check(newer.read())
        await execute(full, "UPDATE schema_version SET version = '0999'", "UPDATE alembic_version SET version_num = '0999'")
        with pytest.raises(BackupTooNew):
            await save(dsn)
        with pytest.raises(BackupTooNew):
            await bring_back(full, shelf, force=True)

    async def test_a_database_that_holds_something_is_left_alone(self, full: AsyncEngine, dsn: str, empty: AsyncEngine) -> None:
        shelf, _ = await save(dsn)
        await upgrade(empty)
        await bring_back(empty, shelf)  # fresh from `db upgrade` it is empty
        before = await contents(empty)
        with pytest.raises(DatabaseNotEmpty, match="api_keys"):
            await bring_back(empty, shelf)
        assert await contents(empty) == before

    async def test_nothing_is_saved_of_nothing_and_nothing_restored_into_what_will_not_do(self, empty: AsyncEngine, empty_dsn: str) -> None:
        with pytest.raises(SchemaBehind):
            await save(empty_dsn)

    async def test_a_server_without_pgvector_for_us_is_refused(
        self, full: AsyncEngine, dsn: str, empty: AsyncEngine, empty_dsn: str
    ) -> None:
        shelf, _ = await save(dsn)
        name = empty_dsn.partition("?")[0].rpartition("/")[2]
        admin(empty_dsn, f"CREATE ROLE {name} LOGIN")
        poor = create_engine(empty_dsn.replace("postgres:@", f"{name}:@"), LIMITS)
        try:
            with pytest.raises(DatabaseUnsuitable):
                await bring_back(poor, shelf)
        finally:
            await poor.dispose()
            admin(empty_dsn, f"DROP ROLE {name}")


class TestTheOldSystem:
    async def test_fences_epochs_and_revisions_leap_and_leases_are_free(self, full: AsyncEngine, dsn: str, empty: AsyncEngine) -> None:
        shelf, _ = await save(dsn)
        await bring_back(empty, shelf)
        jobs = {row["id"][-1]: row for row in (await contents(empty))["jobs"]}
        assert [jobs[number]["fence"] for number in "1234"] == [LEAP, 5 + LEAP, 6 + LEAP, 7]
        assert [jobs[number]["status"] for number in "1234"] == ["pending", "pending", "processing", "completed"]
        assert [jobs[number]["crashes"] for number in "1234"] == [0, 0, 0, 0]
        assert all(row["worker"] is row["lease_until"] is None for row in jobs.values())
        writers = {row["kb"]: row for row in (await contents(empty))["kb_writer"]}
        assert (writers["held"]["epoch"], writers["held"]["holder"], writers["held"]["lease_until"][:4]) == (3 + LEAP, None, "1970")
        assert (writers["free"]["epoch"], writers["free"]["lease_until"]) == (4 + LEAP, None)
        assert await one(empty, "SELECT next_revision FROM documents") == 3 + LEAP
        assert await one(empty, "SELECT next_revision FROM deletion_proofs") == 8 + LEAP
        repository = JobRepository(empty, load().jobs)
        claim = await repository.claim_next(WorkerId("w2"), kinds=[JobKind.INGEST])
        assert claim is not None
        assert claim.fence > LEAP

    async def test_what_the_database_had_reached_is_leapt_over_too(self, full: AsyncEngine, dsn: str) -> None:
        shelf, _ = await save(dsn)
        await execute(full, "UPDATE jobs SET fence = 5000000 WHERE status = 'processing'", "UPDATE kb_writer SET epoch = 6000000")
        await bring_back(full, shelf, force=True)
        assert await one(full, "SELECT min(fence) FROM jobs WHERE status <> 'completed'") == 5_000_000 + LEAP
        assert await one(full, "SELECT min(epoch) FROM kb_writer") == 6_000_000 + LEAP

    async def test_a_live_jobs_deadline_moves_by_the_time_the_backup_slept(self, full: AsyncEngine, dsn: str, empty: AsyncEngine) -> None:
        shelf, saved = await save(dsn)
        header, parts, rows = await opened(shelf)
        slept = header.model_copy(update={"created": datetime.now(UTC) - timedelta(days=9)})
        await bring_back(empty, closed(slept, parts, rows))
        assert await one(empty, "SELECT bool_and(deadline_at > now() + interval '8 days') FROM jobs WHERE finished_at IS NULL")
        assert await one(empty, "SELECT bool_and(deadline_at < now() + interval '1 day') FROM jobs WHERE finished_at IS NOT NULL")
        assert saved.schema_version == HEAD

    async def test_somebody_who_holds_the_tables_is_named_and_nothing_happens(self, full: AsyncEngine, dsn: str) -> None:
        shelf, _ = await save(dsn)
        before = await contents(full)
        short = LIMITS.model_copy(update={"schema_wait": timedelta(seconds=0.3)})
        async with full.connect() as worker:
            await worker.exec_driver_sql("SELECT count(*) FROM jobs")
            with pytest.raises(DatabaseBusy, match="stop the fleet"):
                await restore(full, shelf.read(), force=True, limits=short)
        assert await contents(full) == before


def renamed(header: Header, name: str) -> TableDef:
    return header.tables[-1].model_copy(update={"name": name})
