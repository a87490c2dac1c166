"""The queue of graph steps and what it reads and leaves: SQL only.

The library inserts a task in the transaction that makes a revision live or takes it away. For one document and one text the
newest task is the truth; older ones that still wait are superseded, so an add and a later remove cancel out. A try is counted
when it begins and given back when it ended through no fault of the task, so that a task which takes the process down with it is
found out too.

With a language model a text is read before it is written: a process claims its task by moving `available_at` ahead, renews that while it
reads, and marks the task with what it was read with. Any number of processes read; the writer takes what is marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.knowledge.graph.model import GraphTask, workspace
from shield.knowledge.graph.writer import lightrag_tables
from shield.knowledge.model import Chunk

_COLUMNS = "id, knowledge_base_id, operation, document_id, revision, graph_key, errors, job_id"
_READY = "(t.operation = 'remove' OR CAST(:model AS text) IS NULL OR t.extracted_with IS NOT DISTINCT FROM :model)"
"""A task that can be written: what it adds has been read by the model, if there is one."""


@dataclass(frozen=True)
class Claim:
    """A text that this process reads, and nobody else until `until`."""

    task: GraphTask
    until: datetime


async def pick(engine: AsyncEngine, holder: str, model: str | None, served: Sequence[UUID], patience: timedelta) -> UUID | None:
    """A knowledge base with a task that can be written and a writer that is free, or ours.

    Those not served yet come first, then the one served longest ago. A writer that has just let go comes back for what it is used to:
    what has waited for less than `patience` is left to it.

    Args:
        engine: the database.
        holder: who asks.
        model: what texts must have been read with; None = texts are not read before.
        served: knowledge bases in the order in which this process last served them.
        patience: at least two looks of a living holder.
    """
    async with engine.connect() as connection:
        found = await connection.execute(
            sa.text(
                "SELECT t.knowledge_base_id FROM graph_tasks t"  # noqa: S608  our own names
                " LEFT JOIN kb_writer w ON w.kb = replace(t.knowledge_base_id::text, '-', '')"
                f" WHERE t.status = 'pending' AND t.available_at <= now() AND {_READY}"
                " AND (w.lease_until IS NULL OR w.lease_until <= now() OR w.holder = :holder)"
                " AND (w.lease_until IS NOT NULL OR w.holder IS NULL OR w.holder = :holder OR t.available_at <= now() - :patience)"
                " GROUP BY 1 ORDER BY array_position(:served, t.knowledge_base_id) NULLS FIRST, min(t.available_at), min(t.id) LIMIT 1"
            ).bindparams(sa.bindparam("served", list(served), sa.ARRAY(sa.Uuid)), sa.bindparam("model", model, sa.Text)),
            {"holder": holder, "patience": patience},
        )
        return found.scalar()


async def claim(engine: AsyncEngine, model: str, served: Sequence[UUID], lease: timedelta) -> Claim | None:
    """Take the next text that nobody has read with `model`, for `lease`; after that it is anybody's again.

    A text that several documents share is read for the first of them only. Knowledge bases take turns as in `pick`.
    """
    async with engine.begin() as connection:
        row = (
            await connection.execute(
                sa.text(
                    "UPDATE graph_tasks SET available_at = clock_timestamp() + :lease WHERE id = (SELECT t.id FROM graph_tasks t"  # noqa: S608
                    f" WHERE t.status = 'pending' AND t.operation = 'add' AND t.available_at <= now() AND NOT {_READY}"
                    " AND NOT EXISTS (SELECT 1 FROM graph_tasks o WHERE o.status = 'pending' AND o.knowledge_base_id = t.knowledge_base_id"
                    "   AND o.graph_key = t.graph_key AND (o.id < t.id AND o.operation = 'add' AND o.extracted_with IS DISTINCT FROM :model"
                    "   OR o.id > t.id AND o.document_id = t.document_id))"
                    " ORDER BY array_position(:served, t.knowledge_base_id) NULLS FIRST, t.id LIMIT 1 FOR UPDATE SKIP LOCKED)"
                    f" RETURNING available_at AS until, {_COLUMNS}"
                ).bindparams(sa.bindparam("served", list(served), sa.ARRAY(sa.Uuid))),
                {"model": model, "lease": lease},
            )
        ).first()
        if row is None:
            return None
        values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it
        return Claim(until=values.pop("until"), task=GraphTask(**values))


async def renew(engine: AsyncEngine, claim: Claim, lease: timedelta) -> Claim | None:
    """Keep a text for `lease` from now; None if it is somebody else's, or its task has ended."""
    async with engine.begin() as connection:
        row = await connection.execute(
            sa.text(
                "UPDATE graph_tasks SET available_at = clock_timestamp() + :lease WHERE id = :id AND status = 'pending'"
                " AND available_at = :until RETURNING available_at"
            ),
            {"id": claim.task.id, "until": claim.until, "lease": lease},
        )
        until = row.scalar()
        return None if until is None else replace(claim, until=until)


async def let_go(engine: AsyncEngine, claim: Claim, model: str | None = None) -> None:
    """Let a text's task go on; `model` says that the text has been read with it."""
    async with engine.begin() as connection:
        await connection.execute(
            sa.text(
                "UPDATE graph_tasks SET extracted_with = coalesce(:model, extracted_with),"
                " available_at = CASE WHEN available_at = :until THEN now() ELSE available_at END WHERE id = :id AND status = 'pending'"
            ).bindparams(sa.bindparam("model", model, sa.Text)),
            {"id": claim.task.id, "until": claim.until},
        )


async def unread(connection: AsyncConnection, task_id: int) -> None:
    """What was extracted from a text is not there any more: it has to be read again; the try that found that out is given back."""
    await connection.execute(
        sa.text("UPDATE graph_tasks SET extracted_with = NULL, errors = greatest(0, errors - 1) WHERE id = :id AND status = 'pending'"),
        {"id": task_id},
    )


async def count_try(connection: AsyncConnection, claim: Claim) -> bool:
    """A try that failed before it began; False, and nothing counted, if the text is somebody else's by now."""
    counted = await connection.execute(
        sa.text("UPDATE graph_tasks SET errors = errors + 1 WHERE id = :id AND status = 'pending' AND available_at = :until"),
        {"id": claim.task.id, "until": claim.until},
    )
    return counted.rowcount == 1


async def begin(connection: AsyncConnection, knowledge_base_id: UUID, model: str | None) -> GraphTask | None:
    """Count a try for the next task that can be written, and put aside what a newer task has overtaken."""
    next_one = sa.text(
        f"SELECT t.document_id, t.graph_key, (SELECT max(n.id) FROM graph_tasks n WHERE n.document_id = t.document_id"  # noqa: S608  our own names
        "   AND n.graph_key = t.graph_key AND n.knowledge_base_id = t.knowledge_base_id) AS newest"
        f" FROM graph_tasks t WHERE t.knowledge_base_id = :kb AND t.status = 'pending' AND t.available_at <= now() AND {_READY}"
        " ORDER BY t.id LIMIT 1"
    ).bindparams(sa.bindparam("model", model, sa.Text))
    put_aside = sa.text(
        "UPDATE graph_tasks SET status = 'superseded', finished_at = now() WHERE knowledge_base_id = :kb AND status = 'pending'"
        " AND document_id = :document AND graph_key = :key AND id < :newest"
    )
    count = sa.text(
        f"UPDATE graph_tasks t SET errors = errors + 1 WHERE t.id = :newest AND t.status = 'pending' AND t.available_at <= now()"  # noqa: S608
        f" AND {_READY} RETURNING {_COLUMNS}, extract(epoch FROM now() - t.available_at)::float8 AS waited"
    ).bindparams(sa.bindparam("model", model, sa.Text))
    while (found := (await connection.execute(next_one, {"kb": knowledge_base_id})).first()) is not None:
        about = {"kb": knowledge_base_id, "document": found.document_id, "key": found.graph_key, "newest": found.newest}
        await connection.execute(put_aside, about)
        if (row := (await connection.execute(count, {"newest": found.newest})).first()) is not None:
            return GraphTask(**row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it
    return None


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
    """Remove what is kept beside the graph for a text that has left it, unless another document is about to bring it back."""
    await connection.execute(
        sa.text(
            "DELETE FROM extractions WHERE knowledge_base_id = :kb AND graph_key = :key AND NOT EXISTS (SELECT 1 FROM graph_tasks"
            " WHERE knowledge_base_id = :kb AND graph_key = :key AND operation = 'add' AND status = 'pending')"
        ),
        {"kb": knowledge_base_id, "key": graph_key},
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
