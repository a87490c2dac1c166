"""The schema: migrations match the tables, run up and down, and the database itself guards what must never change."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database import migrate
from shield.database.migrate import check_version, config, upgrade
from shield.errors import ConfigInvalid

NEW_JOB = sa.text(
    "INSERT INTO jobs (kind, principal, knowledge_base_id, knowledge_base, request_hash, deadline_at) "
    "VALUES ('crawl', 'local', gen_random_uuid(), 'default', 'h', now() + interval '1 day') RETURNING id"
)


async def test_the_migrations_make_exactly_the_tables_of_the_code(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(lambda c: command.check(config(c)))


def test_the_newest_migration_is_the_one_the_program_knows() -> None:
    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert scripts.get_heads() == [migrate.HEAD]


async def test_migrations_run_down_and_up_again(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(lambda c: command.downgrade(config(c), "base"))
    await upgrade(engine)
    await upgrade(engine)
    await check_version(engine, "0.1.0")


async def test_an_older_server_is_told_which_version_it_needs(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE schema_version SET min_app_version = '9.0.0'"))
    with pytest.raises(ConfigInvalid, match=r"9\.0\.0"):
        await check_version(engine, "0.1.0")


async def test_an_ended_job_never_changes(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        job = (await connection.execute(NEW_JOB)).scalar_one()
        await connection.execute(sa.text("UPDATE jobs SET status='completed', finished_at=now() WHERE id=:id"), {"id": job})
    with pytest.raises(DBAPIError, match="does not change"):
        async with engine.begin() as connection:
            await connection.execute(sa.text("UPDATE jobs SET status='pending', finished_at=NULL WHERE id=:id"), {"id": job})


async def test_a_fence_only_grows(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        job = (await connection.execute(NEW_JOB)).scalar_one()
        await connection.execute(sa.text("UPDATE jobs SET fence = 7 WHERE id=:id"), {"id": job})
    with pytest.raises(DBAPIError, match="only grows"):
        async with engine.begin() as connection:
            await connection.execute(sa.text("UPDATE jobs SET fence = 6 WHERE id=:id"), {"id": job})
