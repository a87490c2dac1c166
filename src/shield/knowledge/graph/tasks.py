"""The queue of graph steps and what it reads and leaves: SQL only.

The library inserts a task in the transaction that makes a revision live or takes it away. For one document and one text the
newest task is the truth; older ones that still wait are superseded, so an add and a later remove cancel out. A try is counted
when it begins and given back when it ended through no fault of the task, so that a task which takes the process down with it is
found out too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.knowledge.graph.model import GraphTask, workspace
from shield.knowledge.graph.writer import lightrag_tables
from shield.knowledge.model import Chunk

_COLUMNS = "id, knowledge_base_id, operation, document_id, revision, graph_key, errors, job_id"


async def pick(engine: AsyncEngine, holder: str, last: UUID | None) -> UUID | None:
    """A knowledge base with a task that may run and a writer that is free (or ours); the one served last comes last."""
    async with engine.connect() as connection:
        found = await connection.execute(
            sa.text(
                "SELECT t.knowledge_base_id FROM graph_tasks t"
                " LEFT JOIN kb_writer w ON w.kb = replace(t.knowledge_base_id::text, '-', '')"
                " WHERE t.status = 'pending' AND t.available_at <= now()"
                " AND (w.lease_until IS NULL OR w.lease_until <= now() OR w.holder = :holder)"
                " GROUP BY 1 ORDER BY t.knowledge_base_id = :last, min(t.available_at), min(t.id) LIMIT 1"
            ).bindparams(sa.bindparam("last", last, sa.Uuid)),
            {"holder": holder},
        )
        return found.scalar()


async def ahead(engine: AsyncEngine, knowledge_base_id: UUID, limit: int) -> list[GraphTask]:
    """The next tasks that add a text and may run."""
    async with engine.connect() as connection:
        rows = await connection.execute(
            sa.text(
                f"SELECT {_COLUMNS} FROM graph_tasks WHERE knowledge_base_id = :kb AND status = 'pending' AND operation = 'add'"  # noqa: S608  our own names
                " AND available_at <= now() ORDER BY id LIMIT :limit"
            ),
            {"kb": knowledge_base_id, "limit": limit},
        )
        return [GraphTask(**row._mapping) for row in rows]  # noqa: SLF001  SQLAlchemy's public name for it


async def claim(engine: AsyncEngine, task_id: int, lapse: timedelta) -> bool:
    """Keep a task from all others for a while, to ask the model about it; after `lapse` it is anybody's again."""
    async with engine.begin() as connection:
        claimed = await connection.execute(
            sa.text("UPDATE graph_tasks SET available_at = now() + :lapse WHERE id = :id AND status = 'pending' AND available_at <= now()"),
            {"id": task_id, "lapse": lapse},
        )
        return claimed.rowcount == 1


async def unclaim(engine: AsyncEngine, task_id: int) -> None:
    """Let a task run."""
    async with engine.begin() as connection:
        await connection.execute(
            sa.text("UPDATE graph_tasks SET available_at = now() WHERE id = :id AND status = 'pending'"), {"id": task_id}
        )


async def count_try(connection: AsyncConnection, task_id: int) -> None:
    """A try that failed before it began."""
    await connection.execute(sa.text("UPDATE graph_tasks SET errors = errors + 1 WHERE id = :id AND status = 'pending'"), {"id": task_id})


async def begin(connection: AsyncConnection, knowledge_base_id: UUID) -> GraphTask | None:
    """Count a try for the next task, after putting aside what newer tasks have overtaken."""
    kb = {"kb": knowledge_base_id}
    await connection.execute(
        sa.text(
            "UPDATE graph_tasks t SET status = 'superseded', finished_at = now()"
            " WHERE t.knowledge_base_id = :kb AND t.status = 'pending' AND EXISTS (SELECT 1 FROM graph_tasks n"
            " WHERE n.knowledge_base_id = :kb AND n.document_id = t.document_id AND n.graph_key = t.graph_key AND n.id > t.id)"
        ),
        kb,
    )
    row = (
        await connection.execute(
            sa.text(
                "UPDATE graph_tasks SET errors = errors + 1 WHERE id = (SELECT id FROM graph_tasks WHERE knowledge_base_id = :kb"  # noqa: S608
                f" AND status = 'pending' AND available_at <= now() ORDER BY id LIMIT 1) RETURNING {_COLUMNS}"
            ),
            kb,
        )
    ).first()
    return None if row is None else GraphTask(**row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it


async def end(connection: AsyncConnection, task: GraphTask, status: str, code: str | None = None, message: str | None = None) -> None:
    """Write a task's end state; a try that ended well does not stay counted."""
    await connection.execute(
        sa.text(
            "UPDATE graph_tasks SET status = :status, code = :code, message = :message, finished_at = now(),"
            " errors = greatest(0, errors - :back) WHERE id = :id"
        ),
        {"id": task.id, "status": status, "code": code, "message": message, "back": int(status != "failed")},
    )


async def postpone(connection: AsyncConnection, task_id: int, delay: timedelta, *, spend: bool, code: str, message: str) -> None:
    """Put a task off; `spend=False` gives its try back."""
    await connection.execute(
        sa.text(
            "UPDATE graph_tasks SET available_at = now() + :delay, errors = greatest(0, errors - :back), code = :code, message = :message"
            " WHERE id = :id AND status = 'pending'"
        ),
        {"id": task_id, "delay": delay, "back": 0 if spend else 1, "code": code, "message": message},
    )


async def overdue(connection: AsyncConnection, task_id: int, age: timedelta) -> bool:
    """Whether a task has waited longer than a job may take."""
    found = await connection.execute(
        sa.text("SELECT created_at < now() - CAST(:age AS interval) FROM graph_tasks WHERE id = :id"), {"id": task_id, "age": age}
    )
    return bool(found.scalar())


async def hand_back(engine: AsyncEngine, task_id: int) -> None:
    """A try that was broken off to let the process stop, or to let others write, does not count."""
    async with engine.begin() as connection:
        await connection.execute(
            sa.text("UPDATE graph_tasks SET errors = greatest(0, errors - 1) WHERE id = :id AND status = 'pending'"), {"id": task_id}
        )


async def chunks_of(connection: AsyncConnection, knowledge_base_id: UUID, graph_key: str) -> list[Chunk]:
    """The chunks behind a graph key, from any document that has them; empty once none has."""
    rows = await connection.execute(
        sa.text(
            "SELECT c.ordinal, c.text, c.start, c.end, c.tokens, c.heading_path FROM chunks c"
            " JOIN (SELECT r.document_id, r.revision FROM document_revisions r JOIN documents d ON d.id = r.document_id"
            "   WHERE d.knowledge_base_id = :kb AND r.graph_key = :key ORDER BY r.document_id, r.revision LIMIT 1) r"
            " ON c.document_id = r.document_id AND c.revision = r.revision ORDER BY c.ordinal"
        ),
        {"kb": knowledge_base_id, "key": graph_key},
    )
    return [Chunk(row.ordinal, row.text, row.start, row.end, row.tokens, tuple(row.heading_path)) for row in rows]


async def join(connection: AsyncConnection, task: GraphTask) -> None:
    """Count a document among those that hold a text."""
    await connection.execute(
        sa.text(
            "INSERT INTO graph_members (knowledge_base_id, graph_key, document_id, revision) VALUES (:kb, :key, :document, :revision)"
            " ON CONFLICT (knowledge_base_id, graph_key, document_id) DO UPDATE SET revision = excluded.revision"
        ),
        {"kb": task.knowledge_base_id, "key": task.graph_key, "document": task.document_id, "revision": task.revision or 0},
    )


async def leave(connection: AsyncConnection, task: GraphTask) -> int:
    """Count a document out; returns how many still hold the text."""
    names = {"kb": task.knowledge_base_id, "key": task.graph_key, "document": task.document_id}
    await connection.execute(
        sa.text("DELETE FROM graph_members WHERE knowledge_base_id = :kb AND graph_key = :key AND document_id = :document"), names
    )
    left = await connection.execute(sa.text("SELECT count(*) FROM graph_members WHERE knowledge_base_id = :kb AND graph_key = :key"), names)
    return int(left.scalar_one())


async def parts_stored(connection: AsyncConnection, knowledge_base_id: UUID, graph_key: str) -> dict[str, str]:
    """LightRAG's documents of a graph key and their status; empty before its tables exist."""
    if "lightrag_doc_status" not in await lightrag_tables(connection):
        return {}
    rows = await connection.execute(
        sa.text("SELECT id, status FROM lightrag_doc_status WHERE workspace = :ws AND starts_with(id, :key) ORDER BY id"),
        {"ws": workspace(knowledge_base_id), "key": f"{graph_key}-"},
    )
    return {row.id: row.status for row in rows}


async def forget_key(connection: AsyncConnection, knowledge_base_id: UUID, graph_key: str) -> None:
    """Remove what is kept beside the graph for a text that has left it."""
    await connection.execute(
        sa.text("DELETE FROM extractions WHERE knowledge_base_id = :kb AND graph_key = :key"), {"kb": knowledge_base_id, "key": graph_key}
    )


async def forget_everything(connection: AsyncConnection, knowledge_base_id: UUID) -> Mapping[str, int]:
    """Remove a whole graph with all its bookkeeping; rows removed by table. The transaction must be the writer's."""
    removed: dict[str, int] = {}
    for table in sorted(await lightrag_tables(connection), reverse=True):  # edges before the nodes they refer to
        result: sa.CursorResult[Any] = await connection.execute(
            sa.text(f'DELETE FROM "{table}" WHERE workspace = :ws'),  # noqa: S608  a name from the catalogue
            {"ws": workspace(knowledge_base_id)},
        )
        removed[table] = result.rowcount
    for table in ("extractions", "graph_members", "graph_tasks"):
        result = await connection.execute(
            sa.text(f"DELETE FROM {table} WHERE knowledge_base_id = :kb"),  # noqa: S608  our own names
            {"kb": knowledge_base_id},
        )
        removed[table] = result.rowcount
    await connection.execute(sa.text("DELETE FROM kb_writer WHERE kb = :ws"), {"ws": workspace(knowledge_base_id)})
    return removed


async def prune(engine: AsyncEngine, keep: timedelta) -> None:
    """Remove ended tasks that nobody asks for any more."""
    async with engine.begin() as connection:
        await connection.execute(
            sa.text("DELETE FROM graph_tasks WHERE status <> 'pending' AND finished_at < now() - :keep"), {"keep": keep}
        )
