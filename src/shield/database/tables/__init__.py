"""All tables, in one package, as SQLAlchemy Core; Alembic's migrations are checked against this package.

Time is the database's (`now()`), never a process's. Text that a person sent lives only in `document_revisions`, `chunks`,
`jobs.payload`, `uploads.content`, `crawl_pages.body` and `extractions`, and the deletion proof reads the catalogue, so a new
table is covered without being named. LightRAG makes its own tables (`lightrag_*`); see `knowledge/graph`.
"""

from __future__ import annotations

from shield.database.tables.base import metadata
from shield.database.tables.graph import extractions, graph_members, graph_tasks, kb_writer
from shield.database.tables.jobs import job_outcomes, jobs, token_reservations, webhook_deliveries, workers
from shield.database.tables.library import (
    chunks,
    collections,
    deletion_proofs,
    document_revisions,
    documents,
    embeddings,
    knowledge_bases,
    missing_points,
    stale_points,
)
from shield.database.tables.sources import crawl_pages, upload_parts, uploads, web_pages
from shield.database.tables.system import api_keys, audit_records, cursors_secret, schema_version

__all__ = [
    "api_keys",
    "audit_records",
    "chunks",
    "collections",
    "crawl_pages",
    "cursors_secret",
    "deletion_proofs",
    "document_revisions",
    "documents",
    "embeddings",
    "extractions",
    "graph_members",
    "graph_tasks",
    "job_outcomes",
    "jobs",
    "kb_writer",
    "knowledge_bases",
    "metadata",
    "missing_points",
    "schema_version",
    "stale_points",
    "token_reservations",
    "upload_parts",
    "uploads",
    "web_pages",
    "webhook_deliveries",
    "workers",
]
