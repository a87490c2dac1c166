"""Databases with something in every table, a second database beside a test's own, and backups of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.backup import Backup, Restored, Saved, restore
from shield.database.backup.archive import Header, Packer, Unpacker
from shield.database.tables import metadata
from shield.settings import PostgresSettings

LIMITS = PostgresSettings(schema_wait=timedelta(seconds=2), lock_timeout=timedelta(milliseconds=200))
KB = "00000000-0000-0000-0000-0000000000b0"

AT_0001 = (
    f"INSERT INTO knowledge_bases (id, name, embedding_model, embedding_dim, owner) VALUES ('{KB}', 'default', 'all-minilm-l6-v2', 384, 'local')",
    *(
        "INSERT INTO jobs (id, kind, status, principal, knowledge_base_id, knowledge_base, request_hash, deadline_at, fence, worker, lease_until,"
        f" finished_at, parked, payload, published_at) VALUES ('{number:032}', 'ingest', '{status}', 'me', '{KB}', 'default', 'h', now() + interval"
        f" '1 hour', {fence}, {worker}, {lease}, {finished}, {parked}, '\\x00ff', now())"
        for number, status, fence, worker, lease, finished, parked in (
            (1, "pending", 0, "NULL", "NULL", "NULL", "false"),
            (2, "processing", 5, "'w1'", "now() + interval '30 s'", "NULL", "false"),
            (3, "processing", 6, "NULL", "NULL", "NULL", "true"),
            (4, "completed", 7, "NULL", "NULL", "now()", "false"),
        )
    ),
    f"INSERT INTO job_outcomes (job_id, number, source, status) VALUES ('{4:032}', 1, 'https://a.example/', 'stored')",
    f"INSERT INTO crawl_pages (job_id, number, url, depth, body, links) VALUES ('{2:032}', 1, 'https://a.example/', 0, '\\x789c', ARRAY['a', 'b\\\"c', NULL])",
    "INSERT INTO uploads (id, principal, name, content, stored, size, expires_at) VALUES (gen_random_uuid(), 'me', 'a', '\\x61', true, 1, now() + interval '1 h')",
    (
        f"INSERT INTO documents (id, knowledge_base_id, source, kind, live_revision, next_revision, metadata)"
        f" VALUES ('{9:032}', '{KB}', 'https://a.example/', 'web', 2, 3, '{{\"a\": [1, null, \"\\\\u00e4\"]}}')"
    ),
    f"INSERT INTO document_revisions (document_id, revision, content_hash, text) VALUES ('{9:032}', 2, 'h', E'tab\\there\\nline \\\\ back\\rslash ä 🜁 \\\\. \\\\N')",
    f"INSERT INTO chunks (document_id, revision, ordinal, text, start, \"end\", tokens, embed_hash) VALUES ('{9:032}', 2, 0, 'tab', 0, 3, 1, 'e')",
    "INSERT INTO embeddings (model, text_hash, vector) SELECT 'm', 't', decode(string_agg(lpad(to_hex(i), 2, '0'), ''), 'hex') FROM generate_series(0, 255) i",
    f"INSERT INTO stale_points (document_id, revision, knowledge_base_id) VALUES ('{9:032}', 1, '{KB}')",
    "INSERT INTO kb_writer (kb, epoch, holder, lease_until) VALUES ('held', 3, 'w1', now() + interval '45 s'), ('free', 4, 'w2', NULL)",
    f"INSERT INTO graph_tasks (knowledge_base_id, operation, document_id, graph_key, job_id) VALUES ('{KB}', 'add', '{9:032}', 'g', '{3:032}')",
    f"INSERT INTO graph_members (knowledge_base_id, graph_key, document_id, revision) VALUES ('{KB}', 'g', '{9:032}', 2)",
    f"INSERT INTO extractions (knowledge_base_id, model, prompt_hash, graph_key, result) VALUES ('{KB}', 'm', 'p', 'g', '')",
    "INSERT INTO audit_records (principal, action, subject) VALUES ('me', 'delete', 'x'), ('me', 'delete', 'y')",
    (
        f"INSERT INTO deletion_proofs (job_id, document_id, sentences_checked, sentences_shared, hits, seconds, next_revision)"
        f" VALUES ('{4:032}', '{8:032}', 3, 0, 0, 0.1, 8)"
    ),
)
"""A row or more in every table of the first release."""


def since_0002() -> list[str]:
    """A row in every table that came later, whatever its columns are."""
    return [_a_row(table) for table in metadata.sorted_tables if not any(f"INTO {table.name} " in text for text in (*AT_0001, *_SEEDED))]


_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_SEEDED = ("INTO schema_version ", "INTO cursors_secret ")


def _a_row(table: sa.Table) -> str:
    words = {
        match[1]: match[2]
        for check in table.constraints
        if isinstance(check, sa.CheckConstraint) and (match := re.match(r"(\w+) IN \('(\w+)'", str(check.sqltext)))
    }
    values = {
        column.name: _a_value(column, words)
        for column in table.columns
        if not column.nullable and column.server_default is None and column.autoincrement is not True
    }
    return f"INSERT INTO {table.name} ({', '.join(values)}) VALUES ({', '.join(values.values())})"


def _a_value(column: sa.Column[Any], words: dict[str, str]) -> str:
    for key in column.foreign_keys:
        return f"(SELECT {key.column.name} FROM {key.column.table.name} ORDER BY 1 LIMIT 1)"
    if column.name in words:
        return f"'{words[column.name]}'"
    return {"UUID": "gen_random_uuid()", "BYTEA": "'\\x00ff'", "ARRAY": "'{a}'", "TIMESTAMP WITH TIME ZONE": "now()"}.get(
        str(column.type.compile(dialect=_DIALECT)).replace("TEXT[]", "ARRAY"), "'7'"
    )


async def execute(engine: AsyncEngine, *statements: str) -> None:
    """Run statements in one transaction."""
    async with engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def contents(engine: AsyncEngine, *without: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table as JSON, columns named in `without` left out."""
    tables = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
    found: dict[str, list[dict[str, Any]]] = {}
    async with engine.connect() as connection:
        for table in (await connection.execute(sa.text(tables))).scalars().all():
            rows = (await connection.execute(sa.text(f"SELECT to_jsonb(t) FROM {table} t ORDER BY to_jsonb(t)::text"))).scalars().all()
            found[table] = [{name: value for name, value in row.items() if name not in without} for row in rows]
    return found


@dataclass
class Shelf:
    """A place in memory that keeps what was written, whole or not at all."""

    data: bytes = b""
    sizes: list[int] = field(default_factory=list)

    async def write(self, chunks: AsyncIterator[bytes]) -> None:
        taken = bytearray()
        async for chunk in chunks:
            self.sizes.append(len(chunk))
            taken += chunk
        self.data = bytes(taken)

    async def read(self, size: int = 70_000) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), size):
            yield self.data[start : start + size]


async def save(dsn: str, uploads: Path | None = None, **options: Any) -> tuple[Shelf, Saved]:
    """A backup in memory."""
    shelf = Shelf()
    backup = Backup(dsn, app_version="0.2.0", limits=LIMITS, stall=timedelta(seconds=10), uploads=uploads, **options)
    await shelf.write(backup.chunks())
    return shelf, backup.saved


async def bring_back(engine: AsyncEngine, shelf: Shelf, *, force: bool = False) -> Restored:
    """Restore it."""
    return await restore(engine, shelf.read(), force=force, limits=LIMITS)


def admin(dsn: str, *statements: str) -> None:
    """Run statements outside of any transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def one(engine: AsyncEngine, statement: str) -> Any:
    """The only value of a query, and what it changed is kept."""
    async with engine.begin() as connection:
        return (await connection.exec_driver_sql(statement)).scalar_one()


async def opened(shelf: Shelf) -> tuple[Header, list[bytes], dict[str, int]]:
    """A backup's header, each table's rows, and the numbers of its trailer."""
    unpacker = Unpacker(shelf.read())
    header = await unpacker.open()
    parts = [b""] * len(header.tables)
    async for part in unpacker.parts():
        parts[part.table] += part.data
    return header, parts, unpacker.trailer.rows


def closed(header: Header, parts: list[bytes], rows: dict[str, int]) -> Shelf:
    """A backup with right checksums, whatever it says."""
    packer = Packer()
    return Shelf(packer.begin(header) + b"".join(packer.part(n, data) for n, data in enumerate(parts) if data) + packer.end(rows))
