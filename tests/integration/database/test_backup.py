"""Backups: everything the database holds, as it was at one moment, while others write."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.auth import LOCAL
from shield.database.backup import Backup
from shield.database.migrate import HEAD, LOCK, current, upgrade
from shield.errors import DatabaseBusy, DatabaseUnavailable
from shield.settings import load
from shield.sources.uploads import create_uploads
from tests.integration.database.support import AT_0001, KB, LIMITS, Shelf, bring_back, contents, execute, one, opened, save

CHANGED = ("fence", "worker", "lease_until", "published_at", "deadline_at", "next_revision", "epoch", "holder", "status")
"""What a restore renews."""


class TestEverything:
    async def test_every_row_and_every_sequence_comes_back(self, full: AsyncEngine, dsn: str, empty: AsyncEngine) -> None:
        before = await contents(full, *CHANGED)
        shelf, saved = await save(dsn)
        restored = await bring_back(empty, shelf)
        after = await contents(empty, *CHANGED)
        assert {**after, "workers": before["workers"]} == before
        assert all(rows or table == "workers" for table, rows in after.items())
        assert after["workers"] == []
        assert (restored.rows, restored.tables, restored.bytes) == (saved.rows, saved.tables, saved.bytes)
        assert (restored.to_schema, await current(empty)) == (HEAD, HEAD)
        for sequence in ("jobs_seq", "audit_records_id_seq"):
            values = [await one(each, f"SELECT nextval('{sequence}')") for each in (full, empty)]
            assert values[0] == values[1] > 2

    async def test_an_older_schema_is_restored_and_upgraded(self, empty: AsyncEngine, empty_dsn: str, engine: AsyncEngine) -> None:
        await upgrade(empty, "0001")
        await execute(empty, *AT_0001)
        before = await contents(empty, *CHANGED)
        shelf, saved = await save(empty_dsn)
        assert saved.schema_version == "0001"
        restored = await bring_back(engine, shelf)
        assert (restored.from_schema, restored.to_schema) == ("0001", HEAD)
        after = await contents(engine, *CHANGED)
        assert {table: len(rows) for table, rows in before.items()} == {table: len(after[table]) for table in before}

    async def test_tables_of_lightrag_come_back_with_keys_indexes_and_fence(
        self, full: AsyncEngine, dsn: str, empty: AsyncEngine, empty_dsn: str
    ) -> None:
        await execute(full, *LIGHTRAG)
        before = await lightrag(full)
        assert len(before["indexes"]) == 5
        shelf, _ = await save(dsn)
        await bring_back(empty, shelf)
        assert await lightrag(empty) == before
        assert await one(empty, "SELECT content_vector::text FROM lightrag_vdb_x") == "[0.1,-2.5e-08,3]"
        with pytest.raises(DBAPIError, match="outdated writer epoch"):
            await execute(empty, "DELETE FROM lightrag_graph_nodes")
        again, _ = await save(empty_dsn)
        assert await rows_of(again) == await rows_of(shelf)

    async def test_tables_of_others_are_left_out_and_named(self, full: AsyncEngine, dsn: str, empty: AsyncEngine) -> None:
        await execute(full, "CREATE TABLE theirs (x int)", "CREATE VIEW seen AS SELECT 1 AS x", "CREATE TEMP TABLE mine (x int)")
        shelf, saved = await save(dsn)
        assert saved.skipped == ("theirs",)
        await bring_back(empty, shelf)
        assert await one(empty, "SELECT to_regclass('theirs') IS NULL")


class TestOneMoment:
    async def test_writers_go_on_and_the_backup_is_of_one_moment(self, engine: AsyncEngine, dsn: str, empty: AsyncEngine) -> None:
        await execute(engine, BASE)
        stop = asyncio.Event()
        written = asyncio.create_task(transfers(engine, stop))
        shelf, saved, slow = Shelf(), None, 0
        backup = Backup(dsn, app_version="0.2.0", limits=LIMITS, stall=timedelta(seconds=10), part=500)

        async def slowly() -> AsyncIterator[bytes]:
            nonlocal slow
            async for chunk in backup.chunks():
                before = await one(engine, "SELECT count(*) FROM chunks")
                async with asyncio.timeout(5):  # writers commit while the backup is half-way
                    while slow < 10 and await one(engine, "SELECT count(*) FROM chunks") == before:
                        await asyncio.sleep(0.005)
                slow += 1
                yield chunk

        async with asyncio.timeout(30):
            await until(engine, "SELECT count(*) > 20 FROM chunks")
            await shelf.write(slowly())
        saved = backup.saved
        stop.set()
        total = await written
        await bring_back(empty, shelf)
        chunks, documents, revisions = [
            await one(empty, f"SELECT count(*) FROM {t}") for t in ("chunks", "documents", "document_revisions")
        ]
        assert chunks == documents == revisions
        assert 20 < chunks < total
        assert saved.rows >= 3 * chunks
        await execute(
            empty, "INSERT INTO audit_records (principal, action, subject) VALUES ('me', 'x', 'after')"
        )  # sequences are beyond all ids

    async def test_a_migration_waits_until_the_backup_is_done_and_a_backup_for_a_migration(
        self, empty: AsyncEngine, empty_dsn: str
    ) -> None:
        await upgrade(empty, "0001")
        chunks = Backup(empty_dsn, app_version="0.2.0", limits=LIMITS, stall=timedelta(seconds=10)).chunks()
        await anext(chunks)
        with pytest.raises(DatabaseBusy):
            await upgrade(empty, settings=LIMITS.model_copy(update={"schema_wait": timedelta(seconds=0.3)}))
        async for _ in chunks:
            pass
        async with empty.begin() as migrating:
            await migrating.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            with pytest.raises(DatabaseBusy):
                await save(empty_dsn)
        assert (await upgrade(empty)).after == HEAD

    async def test_a_table_larger_than_the_buffer_streams_through(self, engine: AsyncEngine, dsn: str, empty: AsyncEngine) -> None:
        await execute(
            engine,
            "INSERT INTO embeddings (model, text_hash, vector)"
            " SELECT 'm', i::text, decode(repeat(md5(i::text), 500), 'hex') FROM generate_series(1, 1500) i",
        )
        tracemalloc.start()
        largest = 0
        packer: list[int] = []
        async for chunk in Backup(dsn, app_version="0.2.0", limits=LIMITS, stall=timedelta(seconds=10), part=256 * 1024).chunks():
            packer.append(len(chunk))
            largest = max(largest, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(packer) > 80  # 24 MB of text in parts of 256 KiB
        assert largest < 8 * 1024**2
        shelf, _ = await save(dsn)
        await bring_back(empty, shelf)
        digest = "SELECT md5(string_agg(text_hash || encode(vector, 'hex'), '' ORDER BY text_hash)) FROM embeddings"
        assert await one(empty, digest) == await one(engine, digest)

    async def test_a_database_that_dies_on_the_way_is_a_typed_error(self, full: AsyncEngine, dsn: str) -> None:
        chunks = Backup(dsn, app_version="0.2.0", limits=LIMITS, stall=timedelta(seconds=10), part=10).chunks()
        await anext(chunks)
        await one(full, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'shield-backup'")
        with pytest.raises(DatabaseUnavailable):
            async for _ in chunks:
                pass
        with pytest.raises(DatabaseUnavailable):
            await save("postgresql://nobody@127.0.0.1:1/none")


class TestUploads:
    async def test_a_file_on_disk_travels_as_a_fleet_would_hold_it(
        self, engine: AsyncEngine, dsn: str, empty: AsyncEngine, data_dir: Path
    ) -> None:
        content = bytes(range(256)) * 10_000
        embedded = create_uploads(engine, load(data_dir=data_dir))

        async def pieces() -> AsyncIterator[bytes]:
            yield content

        made = await embedded.store(LOCAL.name, "a.bin", None, pieces())
        gone = await embedded.store(LOCAL.name, "b.bin", None, pieces())
        (data_dir / "uploads" / str(gone.id)).unlink()
        shelf, saved = await save(dsn, data_dir / "uploads")
        assert saved.uploads_gone == 1
        await bring_back(empty, shelf)
        fleet = load(mode="server", postgres={"dsn": "postgresql://x/y"}, redis={"url": "redis://x"}, qdrant={"url": "http://x"})
        for settings in (fleet, load(data_dir=data_dir / "other")):
            assert (await create_uploads(empty, settings).read(LOCAL.name, made.id))[1] == content


BASE = f"INSERT INTO knowledge_bases (id, name, embedding_model, embedding_dim, owner) VALUES ('{KB}', 'default', 'm', 384, 'local')"
LIGHTRAG = (
    """CREATE TABLE lightrag_graph_nodes (workspace text NOT NULL, id text NOT NULL, properties jsonb NOT NULL DEFAULT '{}'::jsonb,
       updated_at timestamp with time zone DEFAULT now(), PRIMARY KEY (workspace, id))""",
    """CREATE TABLE lightrag_graph_edges (workspace text NOT NULL, src_id text NOT NULL, tgt_id character varying(255)[] DEFAULT NULL,
       FOREIGN KEY (workspace, src_id) REFERENCES lightrag_graph_nodes (workspace, id) ON DELETE CASCADE)""",
    """CREATE TABLE lightrag_vdb_x (id character varying(255) NOT NULL, content_vector vector(3), at timestamp(0) without time zone
       DEFAULT CURRENT_TIMESTAMP, CONSTRAINT lightrag_vdb_x_pk PRIMARY KEY (id))""",
    "CREATE INDEX i1 ON lightrag_vdb_x USING hnsw (content_vector vector_cosine_ops) WITH (m = '16', ef_construction = '64')",
    """CREATE INDEX i2 ON lightrag_graph_edges (workspace) WHERE (workspace COLLATE "C") > (src_id COLLATE "C")""",
    "CREATE INDEX i3 ON lightrag_graph_nodes (workspace, id NULLS FIRST, updated_at DESC) WHERE id IS NOT NULL AND id <> ''",
    "INSERT INTO lightrag_graph_nodes (workspace, id) VALUES ('w', 'a'), ('w', 'b')",
    "INSERT INTO lightrag_graph_edges VALUES ('w', 'a', ARRAY['b', NULL])",
    "INSERT INTO lightrag_vdb_x VALUES ('a', '[0.1,-2.5e-8,3]')",
    *(
        f"CREATE TRIGGER shield_fence BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION shield_fence()"
        for table in ("lightrag_graph_nodes", "lightrag_graph_edges", "lightrag_vdb_x")
    ),
)


async def lightrag(engine: AsyncEngine) -> dict[str, list[str]]:
    """The structure of LightRAG's tables, as PostgreSQL writes it."""
    looks = {
        "columns": "SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable || coalesce(column_default, '')"
        " FROM information_schema.columns WHERE table_name LIKE 'lightrag%' ORDER BY table_name, ordinal_position",
        "constraints": "SELECT conname || ' ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid::regclass::text LIKE 'lightrag%' ORDER BY 1",
        "indexes": "SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'lightrag%' ORDER BY 1",
        "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'lightrag%' AND NOT tgisinternal ORDER BY 1",
    }
    async with engine.connect() as connection:
        return {name: list((await connection.execute(sa.text(look))).scalars()) for name, look in looks.items()}


async def until(engine: AsyncEngine, condition: str) -> None:
    while not await one(engine, condition):
        await asyncio.sleep(0.01)


async def transfers(engine: AsyncEngine, stop: asyncio.Event) -> int:
    """Keep an invariant: as many chunks as documents as revisions, each in a transaction of its own; returns how many."""
    done = 0
    while not stop.is_set():
        done += 1
        key = f"'{done:032}'"
        await execute(
            engine,
            f"INSERT INTO chunks (document_id, revision, ordinal, text, start, \"end\", tokens, embed_hash) VALUES ({key}, 1, 0, 't', 0, 1, 1, 'e')",
            f"INSERT INTO documents (id, knowledge_base_id, source, kind) VALUES ({key}, '{KB}', {key}, 'web')",
            f"INSERT INTO document_revisions (document_id, revision, content_hash, text) VALUES ({key}, 1, 'h', 't')",
            "INSERT INTO audit_records (principal, action, subject) VALUES ('me', 'x', 'y')",
        )
        await asyncio.sleep(0)
    return done


async def rows_of(shelf: Shelf) -> dict[str, int]:
    return {name: count for name, count in (await opened(shelf))[2].items() if name != "workers"}
