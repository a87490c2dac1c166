"""Initial schema: jobs, documents, the graph's writer fence, and the rows every installation has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


# A terminal state never changes and a fence never shrinks: the database itself refuses, whatever a worker believes.
JOB_GUARD = """
CREATE FUNCTION shield_job_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status IN ('completed', 'failed', 'cancelled') AND NEW.status IS DISTINCT FROM OLD.status THEN
    RAISE EXCEPTION 'shield: a job that has ended does not change' USING errcode = 'SH002';
  END IF;
  IF NEW.fence < OLD.fence THEN
    RAISE EXCEPTION 'shield: a fence only grows' USING errcode = 'SH003';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER shield_job_guard BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION shield_job_guard();
"""

# Attached to each of LightRAG's tables when they are made: a writer with an outdated epoch cannot write.
WRITER_FENCE = """
CREATE FUNCTION shield_fence() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE e bigint;
BEGIN
  -- Held to the end of the transaction; a new epoch is made under the exclusive lock, so no older write commits after it.
  PERFORM pg_advisory_xact_lock_shared(21320, hashtext(current_setting('shield.kb', true)));
  SELECT epoch INTO e FROM kb_writer WHERE kb = current_setting('shield.kb', true);
  IF e IS NULL OR coalesce(nullif(current_setting('shield.epoch', true), ''), '0')::bigint < e THEN
    RAISE EXCEPTION 'shield: outdated writer epoch' USING errcode = 'SH001';
  END IF;
  RETURN NULL;
END $$;
"""


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.execute("CREATE SEQUENCE jobs_seq")
    op.execute("CREATE SEQUENCE jobs_turn")
    op.create_table(
        "audit_records",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_records")),
    )
    op.create_table(
        "chunks",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("heading_path", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("page", sa.Integer(), nullable=True),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("embed_hash", sa.Text(), nullable=False),
        sa.Column("flags", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint("document_id", "revision", "ordinal", name=op.f("pk_chunks")),
    )
    op.create_index("ix_chunks_embed_hash", "chunks", ["embed_hash"], unique=False)
    op.create_table(
        "cursors_secret",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("singleton", name=op.f("ck_cursors_secret_one_row")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_cursors_secret")),
    )
    op.create_table(
        "deletion_proofs",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("sentences_checked", sa.Integer(), nullable=False),
        sa.Column("sentences_shared", sa.Integer(), nullable=False),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.Column("stores", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("next_revision", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "document_id", name=op.f("pk_deletion_proofs")),
    )
    op.create_index("ix_deletion_proofs_document_id", "deletion_proofs", ["document_id"], unique=False)
    op.create_table(
        "embeddings",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("text_hash", sa.Text(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("model", "text_hash", name=op.f("pk_embeddings")),
    )
    op.create_table(
        "extractions",
        sa.Column("knowledge_base_id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("prompt_hash", sa.Text(), nullable=False),
        sa.Column("graph_key", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("knowledge_base_id", "model", "prompt_hash", name=op.f("pk_extractions")),
    )
    op.create_index("ix_extractions_graph_key", "extractions", ["knowledge_base_id", "graph_key"], unique=False)
    op.create_table(
        "graph_members",
        sa.Column("knowledge_base_id", sa.Uuid(), nullable=False),
        sa.Column("graph_key", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("knowledge_base_id", "graph_key", "document_id", name=op.f("pk_graph_members")),
    )
    op.create_table(
        "graph_tasks",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("knowledge_base_id", sa.Uuid(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=True),
        sa.Column("graph_key", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("errors", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("operation IN ('add','remove')", name=op.f("ck_graph_tasks_operation")),
        sa.CheckConstraint("status IN ('pending','done','failed','superseded')", name=op.f("ck_graph_tasks_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_graph_tasks")),
    )
    op.create_index("ix_graph_tasks_document_id", "graph_tasks", ["document_id"], unique=False)
    op.create_index("ix_graph_tasks_job", "graph_tasks", ["job_id"], unique=False)
    op.create_index(
        "ix_graph_tasks_pending", "graph_tasks", ["knowledge_base_id", "id"], unique=False, postgresql_where=sa.text("status = 'pending'")
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default=sa.text("nextval('jobs_seq')"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("stage", sa.Text(), server_default="queued", nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("runner", sa.Text(), server_default="fleet", nullable=False),
        sa.Column("needs", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("priority", sa.Text(), server_default="normal", nullable=False),
        sa.Column("knowledge_base_id", sa.Uuid(), nullable=False),
        sa.Column("knowledge_base", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("payload_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("parked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("turn", sa.BigInteger(), nullable=True),
        sa.Column("errors", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_errors", sa.Integer(), server_default=sa.text("3"), nullable=False),
        sa.Column("max_crashes", sa.Integer(), server_default=sa.text("3"), nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retry_of", sa.Uuid(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("waiting_for", sa.Text(), nullable=True),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(status IN ('completed','failed','cancelled')) = (finished_at IS NOT NULL)", name=op.f("ck_jobs_ended")),
        sa.CheckConstraint("outcome IS NULL OR outcome IN ('complete','partial')", name=op.f("ck_jobs_outcome")),
        sa.CheckConstraint("priority IN ('high','normal','low')", name=op.f("ck_jobs_priority")),
        sa.CheckConstraint("status IN ('pending','processing','completed','failed','cancelled')", name=op.f("ck_jobs_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("seq", name=op.f("uq_jobs_seq")),
    )
    op.create_index(
        "ix_jobs_live", "jobs", ["principal", "request_hash"], unique=False, postgresql_where=sa.text("status IN ('pending','processing')")
    )
    op.create_index("ix_jobs_principal", "jobs", ["principal", "seq"], unique=False)
    op.create_index("ix_jobs_turn", "jobs", ["principal", "turn"], unique=False, postgresql_where=sa.text("turn IS NOT NULL"))
    op.create_index("ix_jobs_finished", "jobs", ["finished_at"], unique=False, postgresql_where=sa.text("finished_at IS NOT NULL"))
    op.create_index("ix_jobs_relay", "jobs", ["available_at"], unique=False, postgresql_where=sa.text("status IN ('pending','processing')"))
    op.create_index(
        "uq_jobs_idempotency",
        "jobs",
        ["principal", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "kb_writer",
        sa.Column("kb", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("kb", name=op.f("pk_kb_writer")),
    )
    op.create_table(
        "knowledge_bases",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("graph", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("embedding_model", sa.Text(), nullable=False),
        sa.Column("embedding_dim", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("deleting", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_knowledge_bases")),
        sa.UniqueConstraint("name", name=op.f("uq_knowledge_bases_name")),
    )
    op.create_table(
        "schema_version",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("min_app_version", sa.Text(), nullable=False),
        sa.CheckConstraint("singleton", name=op.f("ck_schema_version_one_row")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_schema_version")),
    )
    op.create_table(
        "stale_points",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("knowledge_base_id", sa.Uuid(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("document_id", "revision", name=op.f("pk_stale_points")),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("mime", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("stored", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("token_sha256", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index("ix_uploads_expires", "uploads", ["expires_at"], unique=False)
    op.create_table(
        "crawl_pages",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("position", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("counted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("final_url", sa.Text(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("last_modified", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("links", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('queued','fetched','done','skipped','failed')", name=op.f("ck_crawl_pages_state")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_crawl_pages_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_crawl_pages")),
        sa.UniqueConstraint("job_id", "url", name=op.f("uq_crawl_pages_job_id_url")),
    )
    op.create_index("ix_crawl_pages_final_url", "crawl_pages", ["job_id", "final_url"])
    op.create_table(
        "documents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("knowledge_base_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("mime", sa.Text(), server_default="", nullable=False),
        sa.Column("live_revision", sa.BigInteger(), nullable=True),
        sa.Column("next_revision", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("deleting", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('web','file','note')", name=op.f("ck_documents_kind")),
        sa.ForeignKeyConstraint(["knowledge_base_id"], ["knowledge_bases.id"], name=op.f("fk_documents_knowledge_base_id_knowledge_bases")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_documents")),
        sa.UniqueConstraint("knowledge_base_id", "source", name=op.f("uq_documents_knowledge_base_id_source")),
    )
    op.create_table(
        "job_outcomes",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("counted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=True),
        sa.Column("chunks", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("status IN ('stored','unchanged','failed','skipped','deleted')", name=op.f("ck_job_outcomes_status")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_outcomes_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_job_outcomes")),
    )
    op.create_table(
        "document_revisions",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=True),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("mime", sa.Text(), server_default="", nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=True),
        sa.Column("graph_key", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("flags", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_document_revisions_document_id_documents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("document_id", "revision", name=op.f("pk_document_revisions")),
    )
    op.create_index("ix_document_revisions_graph_key", "document_revisions", ["graph_key"], unique=False)
    op.execute(JOB_GUARD)
    op.execute(WRITER_FENCE)
    op.execute("INSERT INTO schema_version (version, min_app_version) VALUES ('0001', '0.1.0')")
    op.execute("INSERT INTO cursors_secret (secret) SELECT decode(md5(gen_random_uuid()::text) || md5(gen_random_uuid()::text), 'hex')")


def downgrade() -> None:
    op.drop_index("ix_document_revisions_graph_key", table_name="document_revisions")
    op.drop_table("document_revisions")
    op.drop_table("job_outcomes")
    op.drop_table("documents")
    op.drop_table("crawl_pages")
    op.drop_index("ix_uploads_expires", table_name="uploads")
    op.drop_table("uploads")
    op.drop_table("stale_points")
    op.drop_table("schema_version")
    op.drop_table("knowledge_bases")
    op.drop_table("kb_writer")
    op.drop_index("uq_jobs_idempotency", table_name="jobs", postgresql_where=sa.text("idempotency_key IS NOT NULL"))
    op.drop_index("ix_jobs_relay", table_name="jobs", postgresql_where=sa.text("status IN ('pending','processing')"))
    op.drop_index("ix_jobs_finished", table_name="jobs", postgresql_where=sa.text("finished_at IS NOT NULL"))
    op.drop_index("ix_jobs_turn", table_name="jobs", postgresql_where=sa.text("turn IS NOT NULL"))
    op.drop_index("ix_jobs_principal", table_name="jobs")
    op.drop_index("ix_jobs_live", table_name="jobs", postgresql_where=sa.text("status IN ('pending','processing')"))
    op.drop_table("jobs")
    op.drop_index("ix_graph_tasks_pending", table_name="graph_tasks", postgresql_where=sa.text("status = 'pending'"))
    op.drop_index("ix_graph_tasks_job", table_name="graph_tasks")
    op.drop_index("ix_graph_tasks_document_id", table_name="graph_tasks")
    op.drop_table("graph_tasks")
    op.drop_table("graph_members")
    op.drop_index("ix_extractions_graph_key", table_name="extractions")
    op.drop_table("extractions")
    op.drop_table("embeddings")
    op.drop_index("ix_deletion_proofs_document_id", table_name="deletion_proofs")
    op.drop_table("deletion_proofs")
    op.drop_table("cursors_secret")
    op.drop_index("ix_chunks_embed_hash", table_name="chunks")
    op.drop_table("chunks")
    op.drop_table("audit_records")
    op.execute("DROP FUNCTION shield_fence")
    op.execute("DROP FUNCTION shield_job_guard")
    op.execute("DROP SEQUENCE jobs_seq")
    op.execute("DROP SEQUENCE jobs_turn")
