"""Upgrades: with data in the tables, under locks that others hold, with few rights, and processes that wait for them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database import migrate
from shield.database.embedded import EmbeddedPostgres
from shield.database.engine import create_engine
from shield.database.migrate import HEAD, Upgraded, current, upgrade, wait_for_schema
from shield.errors import ConfigInvalid, DatabaseBusy, DatabaseUnavailable, DatabaseUnsuitable, SchemaBehind
from shield.settings import PostgresSettings
from tests.integration.database.support import AT_0001, LIMITS, admin, contents, execute, since_0002

HALF_A_SECOND = LIMITS.model_copy(update={"schema_wait": timedelta(seconds=0.5)})


class TestData:
    async def test_an_upgrade_keeps_every_row_and_so_does_the_way_back(self, empty: AsyncEngine) -> None:
        assert await upgrade(empty, "0001") == Upgraded(None, "0001")
        await execute(empty, *AT_0001)
        before = await contents(empty)
        assert await upgrade(empty) == Upgraded("0001", HEAD)
        await execute(empty, *since_0002())
        after = await contents(empty)
        for table, rows in before.items():
            if table not in {"alembic_version", "schema_version"}:
                kept = [{name: value for name, value in row.items() if name in old} for row, old in zip(after[table], rows, strict=True)]
                assert sorted(map(repr, kept)) == sorted(map(repr, [dict(row) for row in rows])), table
        async with empty.begin() as connection:
            await connection.run_sync(lambda c: command.downgrade(migrate.config(c), "0001"))
        assert await contents(empty) == before
        assert await upgrade(empty) == Upgraded("0001", HEAD)

    async def test_a_second_upgrade_does_nothing(self, engine: AsyncEngine) -> None:
        assert await upgrade(engine) == Upgraded(HEAD, HEAD)

    async def test_of_two_upgrades_at_once_each_sees_the_work_done(self, empty_dsn: str) -> None:
        engines = [create_engine(empty_dsn, LIMITS) for _ in range(3)]
        done = await asyncio.gather(*(upgrade(each, settings=PostgresSettings()) for each in engines))
        assert {each.after for each in done} == {HEAD}
        for each in engines:
            await each.dispose()


class TestLocks:
    async def test_a_table_in_use_is_waited_for_in_short_turns(self, empty: AsyncEngine) -> None:
        await upgrade(empty, "0001")
        async with empty.connect() as reader:
            await reader.exec_driver_sql("SELECT count(*) FROM jobs")  # an open transaction holds the table
            waiting = asyncio.create_task(upgrade(empty, settings=LIMITS.model_copy(update={"schema_wait": timedelta(seconds=20)})))
            for _ in range(3):  # whoever comes meanwhile waits for one turn at most
                async with asyncio.timeout(5), empty.connect() as other:
                    await other.exec_driver_sql("SELECT count(*) FROM jobs")
            assert not waiting.done()
        assert (await waiting).after == HEAD

    async def test_who_cannot_have_the_lock_in_time_is_told(self, empty: AsyncEngine) -> None:
        async with empty.begin() as holder:
            await holder.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({migrate.LOCK})")
            with pytest.raises(DatabaseBusy):
                await upgrade(empty, settings=HALF_A_SECOND)
        assert await current(empty) is None


class TestRights:
    async def test_the_owner_of_a_database_with_the_extension_needs_nothing_else(self, postgres: EmbeddedPostgres) -> None:
        name = f"o_{uuid4().hex[:12]}"
        theirs = postgres.dsn.replace("/postgres?", f"/{name}?")
        admin(postgres.dsn, f"CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE", f"CREATE DATABASE {name} OWNER {name}")
        engine = create_engine(theirs.replace("postgres:@", f"{name}:@"), LIMITS)
        try:
            with pytest.raises(DatabaseUnsuitable, match="CREATE EXTENSION vector"):
                await upgrade(engine)
            assert await current(engine) is None
            admin(theirs, "CREATE EXTENSION vector")
            assert (await upgrade(engine)).after == HEAD
        finally:
            await engine.dispose()
            admin(postgres.dsn, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


class TestWaiting:
    async def test_a_process_waits_until_somebody_upgrades(self, empty: AsyncEngine) -> None:
        said: list[str] = []
        waiting = asyncio.create_task(wait_for_schema(empty, "0.2.0", timedelta(seconds=20), report=said.append))
        while not said:
            await asyncio.sleep(0.02)
        await upgrade(empty)
        await waiting
        assert said == [f"The database's schema is empty; this version needs {HEAD}. Waiting up to 20 s."]

    async def test_a_process_that_waited_in_vain_says_why(self, empty: AsyncEngine) -> None:
        await upgrade(empty, "0001")
        with pytest.raises(SchemaBehind, match="schema is 0001"):
            await wait_for_schema(empty, "0.2.0", timedelta(seconds=0.3))
        nowhere = create_engine("postgresql://nobody@127.0.0.1:1/none", PostgresSettings())
        with pytest.raises(DatabaseUnavailable):
            await wait_for_schema(nowhere, "0.2.0", timedelta(seconds=0.3))
        await nowhere.dispose()

    async def test_a_newer_schema_is_served_on_unless_it_says_otherwise(self, engine: AsyncEngine) -> None:
        await execute(engine, "UPDATE alembic_version SET version_num = '9999'")
        await wait_for_schema(engine, "0.2.0", timedelta(0))
        assert await upgrade(engine) == Upgraded("9999", "9999")
        await execute(engine, "UPDATE schema_version SET min_app_version = '0.3.0'")
        with pytest.raises(ConfigInvalid, match=r"0\.3\.0"):
            await wait_for_schema(engine, "0.2.0", timedelta(0))
