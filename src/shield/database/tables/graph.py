"""The work on a knowledge base's graph, and who holds its writer."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, Table, Text, Uuid, text

from shield.database.tables.base import at, count, metadata, now

kb_writer = Table(
    "kb_writer",
    metadata,
    Column("kb", Text, primary_key=True),  # the graph's workspace
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("holder", Text),
    at("lease_until"),
)

graph_tasks = Table(
    "graph_tasks",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("knowledge_base_id", Uuid, nullable=False),
    Column("operation", Text, nullable=False),  # add | remove
    Column("document_id", Uuid, nullable=False),
    Column("revision", BigInteger),
    Column("graph_key", Text, nullable=False),
    Column("job_id", Uuid),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("errors", Integer, nullable=False, server_default=text("0")),
    Column("code", Text),
    Column("message", Text),
    Column("extracted_with", Text),  # model and prompt whose extractions of the text are kept; NULL = not read yet
    now("available_at"),  # of an `add` that is being read: the end of its reader's claim
    now("created_at"),
    at("finished_at"),
    CheckConstraint("operation IN ('add','remove')", name="operation"),
    CheckConstraint("status IN ('pending','done','failed','superseded')", name="status"),
    Index("ix_graph_tasks_pending", "knowledge_base_id", "id", postgresql_where=text("status = 'pending'")),
    Index("ix_graph_tasks_job", "job_id"),
    Index("ix_graph_tasks_document_id", "document_id"),
)

graph_members = Table(
    "graph_members",
    metadata,
    Column("knowledge_base_id", Uuid, primary_key=True),
    Column("graph_key", Text, primary_key=True),
    Column("document_id", Uuid, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

extractions = Table(
    "extractions",
    metadata,
    Column("knowledge_base_id", Uuid, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("prompt_hash", Text, primary_key=True),
    Column("graph_key", Text, nullable=False),
    Column("result", Text, nullable=False),
    count("tokens"),
    now("created_at"),
    Index("ix_extractions_graph_key", "knowledge_base_id", "graph_key"),
)
