"""Server mode: workers, keys, collections, page states, webhooks; only additions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("knowledge_bases", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("replaced_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index("ix_api_keys_principal", "api_keys", ["principal"], unique=False)
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("runner", sa.Text(), server_default="fleet", nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("offers", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "collections",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("knowledge_base_id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("flipped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("keep_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('shadow','ready','live','retired','failed')", name=op.f("ck_collections_state")),
        sa.ForeignKeyConstraint(
            ["knowledge_base_id"], ["knowledge_bases.id"], name=op.f("fk_collections_knowledge_base_id_knowledge_bases"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collections")),
        sa.UniqueConstraint("knowledge_base_id", "model", "dim", name=op.f("uq_collections_knowledge_base_id_model_dim")),
    )
    op.create_table(
        "token_reservations",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_token_reservations_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_reservations")),
    )
    op.create_index("ix_token_reservations_job_id", "token_reservations", ["job_id"], unique=False)
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], name=op.f("fk_upload_parts_upload_id_uploads"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("upload_id", "number", name=op.f("pk_upload_parts")),
    )
    op.create_table(
        "web_pages",
        sa.Column("knowledge_base_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("final_url", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("start", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("last_modified", sa.Text(), nullable=True),
        sa.Column("body_hash", sa.Text(), nullable=True),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("canonical", sa.Text(), nullable=True),
        sa.Column("text_hash", sa.Text(), nullable=True),
        sa.Column("links", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("fetched_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["knowledge_base_id"], ["knowledge_bases.id"], name=op.f("fk_web_pages_knowledge_base_id_knowledge_bases"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("knowledge_base_id", "url", name=op.f("pk_web_pages")),
    )
    op.create_index("ix_web_pages_document_id", "web_pages", ["document_id"], unique=False)
    op.create_index("ix_web_pages_start", "web_pages", ["knowledge_base_id", "start"], unique=False)
    op.create_table(
        "webhook_deliveries",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('pending','delivered','failed')", name=op.f("ck_webhook_deliveries_status")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_webhook_deliveries_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(
        "ix_webhook_deliveries_due", "webhook_deliveries", ["available_at"], unique=False, postgresql_where=sa.text("status = 'pending'")
    )
    op.create_table(
        "missing_points",
        sa.Column("collection_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collections.id"], name=op.f("fk_missing_points_collection_id_collections"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("collection_id", "document_id", name=op.f("pk_missing_points")),
    )
    op.create_index("ix_missing_points_document_id", "missing_points", ["document_id"], unique=False)
    op.add_column("crawl_pages", sa.Column("canonical", sa.Text(), nullable=True))
    op.add_column("crawl_pages", sa.Column("text_hash", sa.Text(), nullable=True))
    op.add_column("crawl_pages", sa.Column("cut", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index(
        "ix_crawl_pages_text_hash", "crawl_pages", ["job_id", "text_hash"], unique=False, postgresql_where=sa.text("text_hash IS NOT NULL")
    )
    op.add_column("graph_tasks", sa.Column("extracted_with", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("budget_tokens", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("knowledge_bases", sa.Column("founding_model", sa.Text(), nullable=True))
    op.add_column("knowledge_bases", sa.Column("founding_dim", sa.Integer(), nullable=True))
    op.execute("UPDATE schema_version SET version = '0002'")


def downgrade() -> None:
    op.drop_column("knowledge_bases", "founding_dim")
    op.drop_column("knowledge_bases", "founding_model")
    op.drop_column("jobs", "tokens")
    op.drop_column("jobs", "budget_tokens")
    op.drop_column("graph_tasks", "extracted_with")
    op.drop_index("ix_crawl_pages_text_hash", table_name="crawl_pages", postgresql_where=sa.text("text_hash IS NOT NULL"))
    op.drop_column("crawl_pages", "cut")
    op.drop_column("crawl_pages", "text_hash")
    op.drop_column("crawl_pages", "canonical")
    op.drop_index("ix_missing_points_document_id", table_name="missing_points")
    op.drop_table("missing_points")
    op.drop_index("ix_webhook_deliveries_due", table_name="webhook_deliveries", postgresql_where=sa.text("status = 'pending'"))
    op.drop_table("webhook_deliveries")
    op.drop_index("ix_web_pages_start", table_name="web_pages")
    op.drop_index("ix_web_pages_document_id", table_name="web_pages")
    op.drop_table("web_pages")
    op.drop_table("upload_parts")
    op.drop_index("ix_token_reservations_job_id", table_name="token_reservations")
    op.drop_table("token_reservations")
    op.drop_table("collections")
    op.drop_table("workers")
    op.drop_index("ix_api_keys_principal", table_name="api_keys")
    op.drop_table("api_keys")
    op.execute("UPDATE schema_version SET version = '0001'")
