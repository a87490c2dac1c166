"""All tables, in one place, as SQLAlchemy Core; Alembic's migrations are checked against this file.

Time is the database's (`now()`), never a process's. Text that a person sent lives only in `document_revisions`, `chunks`,
`jobs.payload`, `uploads.content`, `crawl_pages.body` and `extractions`, and the deletion proof reads the catalogue, so a new
table is covered without being named. LightRAG makes its own tables (`lightrag_*`); see `knowledge/graph`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _now(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=None if nullable else func.now())


def _at(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=True)


def _json(name: str, default: str = "{}") -> Column[object]:
    return Column(name, JSONB, nullable=False, server_default=text(f"'{default}'::jsonb"))


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


schema_version = Table(
    "schema_version",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("version", Text, nullable=False),
    # A server starts if its own version is at least this; a release only expands, so a rollback is never refused.
    Column("min_app_version", Text, nullable=False),
    CheckConstraint("singleton", name="one_row"),
)

knowledge_bases = Table(
    "knowledge_bases",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text, nullable=False, server_default=""),
    Column("graph", Boolean, nullable=False, server_default=text("true")),
    Column("embedding_model", Text, nullable=False),
    Column("embedding_dim", Integer, nullable=False),
    # The model the base was made with, once a reindex has changed the one above: documents are cut and hashed for it all their life.
    Column("founding_model", Text),
    Column("founding_dim", Integer),
    Column("owner", Text, nullable=False),
    Column("deleting", Boolean, nullable=False, server_default=text("false")),  # invisible, takes no new documents
    _now("created_at"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("seq", BigInteger, nullable=False, unique=True, server_default=text("nextval('jobs_seq')")),  # stable list order
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("stage", Text, nullable=False, server_default="queued"),
    Column("outcome", Text),  # complete | partial, once completed
    Column("principal", Text, nullable=False),
    Column("runner", Text, nullable=False, server_default="fleet"),
    Column("needs", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    Column("priority", Text, nullable=False, server_default="normal"),
    Column("knowledge_base_id", Uuid, nullable=False),
    Column("knowledge_base", Text, nullable=False),  # its name at intake, for people
    _json("spec"),
    Column("payload", LargeBinary),  # inline content; erased at the end
    _count("payload_bytes"),
    Column("idempotency_key", Text),
    Column("request_hash", Text, nullable=False),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("worker", Text),
    _at("lease_until"),
    Column("parked", Boolean, nullable=False, server_default=text("false")),  # waits for its graph steps, holds no slot
    _now("available_at"),
    _at("published_at"),
    Column("turn", BigInteger),  # the relay's count when it was last started; round-robin by principal reads it
    _count("errors"),
    _count("crashes"),
    Column("max_errors", Integer, nullable=False, server_default=text("3")),
    Column("max_crashes", Integer, nullable=False, server_default=text("3")),
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    _at("cancel_requested_at"),
    Column("retry_of", Uuid),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("waiting_for", Text),  # the dependency it was last handed back for
    _json("progress"),
    Column("traceparent", Text),
    Column("budget_tokens", BigInteger),  # most tokens of language models it may spend; NULL = no limit
    _count("tokens"),  # spent so far, all attempts and its graph steps together
    _now("created_at"),
    _at("started_at"),
    _at("finished_at"),
    _now("updated_at"),
    CheckConstraint("status IN ('pending','processing','completed','failed','cancelled')", name="status"),
    CheckConstraint("priority IN ('high','normal','low')", name="priority"),
    CheckConstraint("outcome IS NULL OR outcome IN ('complete','partial')", name="outcome"),
    CheckConstraint("(status IN ('completed','failed','cancelled')) = (finished_at IS NOT NULL)", name="ended"),
    Index("uq_jobs_idempotency", "principal", "idempotency_key", unique=True, postgresql_where=text("idempotency_key IS NOT NULL")),
    Index("ix_jobs_relay", "available_at", postgresql_where=text("status IN ('pending','processing')")),
    Index("ix_jobs_live", "principal", "request_hash", postgresql_where=text("status IN ('pending','processing')")),
    Index("ix_jobs_principal", "principal", "seq"),
    Index("ix_jobs_turn", "principal", "turn", postgresql_where=text("turn IS NOT NULL")),
    Index("ix_jobs_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    Index("ix_jobs_runner", "runner", postgresql_where=text("runner <> 'fleet'")),
)

job_outcomes = Table(
    "job_outcomes",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),  # order of discovery, from 1
    Column("source", Text, nullable=False),
    Column("status", Text, nullable=False),  # stored | unchanged | failed | skipped | deleted
    Column("counted", Boolean, nullable=False, server_default=text("false")),  # a page request was sent: counts to max_pages
    Column("document_id", Uuid),
    Column("revision", BigInteger),
    Column("chunks", Integer, nullable=False, server_default=text("0")),
    Column("bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("code", Text),
    Column("message", Text),
    _now("at"),
    CheckConstraint("status IN ('stored','unchanged','failed','skipped','deleted')", name="status"),
)

crawl_pages = Table(
    "crawl_pages",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),  # fixed at discovery: (depth, parent's number, link position)
    Column("url", Text, nullable=False),  # canonical
    Column("depth", Integer, nullable=False),
    Column("parent", Integer),
    Column("position", Integer, nullable=False, server_default=text("0")),
    # queued -> fetched (body stored) -> done; or skipped | failed. A number at or below max_pages was or will be requested.
    Column("state", Text, nullable=False, server_default="queued"),
    Column("counted", Boolean, nullable=False, server_default=text("false")),
    Column("status_code", Integer),
    Column("final_url", Text),
    Column("content_type", Text),
    Column("etag", Text),
    Column("last_modified", Text),
    Column("body", LargeBinary),  # compressed; erased once its document is stored
    Column("links", ARRAY(Text)),  # outgoing, canonical, in order
    Column("canonical", Text),  # the address it names as its own, if another
    Column("text_hash", Text),  # sha256 of what it says
    Column("cut", Boolean, nullable=False, server_default=text("false")),  # some of what it leads to was left out: a limit was reached
    Column("code", Text),
    Column("message", Text),
    _at("fetched_at"),
    CheckConstraint("state IN ('queued','fetched','done','skipped','failed')", name="state"),
    UniqueConstraint("job_id", "url"),
    Index("ix_crawl_pages_final_url", "job_id", "final_url"),
    Index("ix_crawl_pages_text_hash", "job_id", "text_hash", postgresql_where=text("text_hash IS NOT NULL")),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("principal", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("mime", Text),
    Column("size", BigInteger),
    Column("sha256", Text),
    Column("content", LargeBinary),  # small ones; larger ones lie in `upload_parts`, or embedded in a file of that id
    Column("stored", Boolean, nullable=False, server_default=text("false")),
    Column("token_sha256", Text),  # of the one-time PUT URL
    Column("job_id", Uuid),
    _now("created_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index("ix_uploads_expires", "expires_at"),
)

documents = Table(
    "documents",
    metadata,
    Column("id", Uuid, primary_key=True),  # uuid5(namespace, kb uuid + LF + source URI)
    Column("knowledge_base_id", Uuid, ForeignKey("knowledge_bases.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("kind", Text, nullable=False),  # web | file | note
    Column("title", Text, nullable=False, server_default=""),
    Column("mime", Text, nullable=False, server_default=""),
    Column("live_revision", BigInteger),  # what readers see; NULL = nothing
    Column("next_revision", BigInteger, nullable=False, server_default=text("1")),
    Column("content_hash", Text),
    _json("metadata"),
    Column("deleting", Boolean, nullable=False, server_default=text("false")),
    _at("fetched_at"),
    _now("created_at"),
    _now("updated_at"),
    CheckConstraint("kind IN ('web','file','note')", name="kind"),
    UniqueConstraint("knowledge_base_id", "source"),
)

document_revisions = Table(
    "document_revisions",
    metadata,
    Column("document_id", Uuid, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("job_id", Uuid),
    Column("fence", BigInteger),
    Column("content_hash", Text, nullable=False),
    Column("title", Text, nullable=False, server_default=""),
    Column("mime", Text, nullable=False, server_default=""),
    Column("text", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("pages", Integer),
    Column("graph_key", Text),  # sha256 of the chunks as the graph sees them
    _json("metadata"),
    _json("flags", "[]"),  # suspected prompt injections and the like
    _at("fetched_at"),
    _now("created_at"),
    Index("ix_document_revisions_graph_key", "graph_key"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("document_id", Uuid, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    Column("heading_path", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    Column("page", Integer),
    Column("start", Integer, nullable=False),  # character offsets in the revision's text, end exclusive
    Column("end", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("embed_hash", Text, nullable=False),  # sha256 of what is embedded: heading path + text
    _json("flags", "[]"),
)
Index("ix_chunks_embed_hash", chunks.c.embed_hash)

embeddings = Table(
    "embeddings",
    metadata,
    Column("model", Text, primary_key=True),
    Column("text_hash", Text, primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # little-endian float32
    _now("created_at"),
)

stale_points = Table(
    "stale_points",
    metadata,
    Column("document_id", Uuid, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("knowledge_base_id", Uuid, nullable=False),
    _now("since"),
)

kb_writer = Table(
    "kb_writer",
    metadata,
    Column("kb", Text, primary_key=True),  # the graph's workspace
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("holder", Text),
    _at("lease_until"),
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
    _now("available_at"),  # of an `add` that is being read: the end of its reader's claim
    _now("created_at"),
    _at("finished_at"),
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
    _count("tokens"),
    _now("created_at"),
    Index("ix_extractions_graph_key", "knowledge_base_id", "graph_key"),
)

audit_records = Table(
    "audit_records",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    _now("at"),
    Column("principal", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    _json("details"),
)

deletion_proofs = Table(
    "deletion_proofs",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("document_id", Uuid, primary_key=True),
    Column("sentences_checked", Integer, nullable=False),
    Column("sentences_shared", Integer, nullable=False),
    Column("hits", Integer, nullable=False),
    _json("stores"),
    Column("seconds", Float, nullable=False),
    # Where the document's revisions go on should its source come back: a stale worker's points must stay dead.
    Column("next_revision", BigInteger, nullable=False, server_default=text("1")),
    _now("at"),
    Index("ix_deletion_proofs_document_id", "document_id"),
)

cursors_secret = Table(
    "cursors_secret",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("secret", LargeBinary, nullable=False),  # signs the opaque cursors; random, made by the migration
    CheckConstraint("singleton", name="one_row"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("runner", Text, nullable=False, server_default="fleet"),
    Column("slots", Integer, nullable=False),
    Column("offers", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),  # needs it can meet
    Column("version", Text, nullable=False),
    _now("started_at"),
    _now("seen_at"),  # renewed with every heartbeat; one not seen for a lease is dead
)

token_reservations = Table(
    "token_reservations",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("tokens", BigInteger, nullable=False),  # what a call that is out may cost at most
    Column("expires_at", DateTime(timezone=True), nullable=False),  # of a caller that died
    Index("ix_token_reservations_job_id", "job_id"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload_id", Uuid, ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

web_pages = Table(
    "web_pages",
    metadata,
    Column("knowledge_base_id", Uuid, ForeignKey("knowledge_bases.id", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, primary_key=True),  # canonical, as requested
    Column("final_url", Text, nullable=False),
    Column("document_id", Uuid, nullable=False),
    Column("revision", BigInteger, nullable=False),  # of the document, which it gave
    Column("start", Text, nullable=False),  # canonical start page of the crawl that stored it last
    Column("etag", Text),
    Column("last_modified", Text),
    Column("body_hash", Text),  # sha256 of type and body as fetched; NULL: ask for it anew
    Column("recipe", Text, nullable=False),  # what made document and links of it: converter, chunker, model, metadata, scope, globs
    Column("canonical", Text),
    Column("text_hash", Text),
    Column("links", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),  # outgoing, canonical, in order
    Column("job_id", Uuid),  # the last crawl that saw it
    _now("fetched_at"),
    Index("ix_web_pages_document_id", "document_id"),
    Index("ix_web_pages_start", "knowledge_base_id", "start"),
)

collections = Table(
    "collections",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("knowledge_base_id", Uuid, ForeignKey("knowledge_bases.id", ondelete="CASCADE"), nullable=False),
    Column("model", Text, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("state", Text, nullable=False),  # shadow -> ready -> live (the base names it) -> retired; the row goes with the vectors
    Column("job_id", Uuid),  # the reindex or rebuild that filled it last
    _json("report"),  # the comparison on golden queries: numbers, never text
    _now("created_at"),
    _at("flipped_at"),  # when it became live, or was retired
    _at("keep_until"),  # of a retired one: written until then, so that a rollback finds it complete
    CheckConstraint("state IN ('shadow','ready','live','retired','failed')", name="state"),
    UniqueConstraint("knowledge_base_id", "model", "dim"),
)

missing_points = Table(
    "missing_points",
    metadata,
    # Documents whose live revision this collection may lack; whoever indexes it takes the note away.
    Column("collection_id", Uuid, ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True),
    Column("document_id", Uuid, primary_key=True),
    Index("ix_missing_points_document_id", "document_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),  # the 8 visible characters
    Column("sha256", LargeBinary, nullable=False),
    Column("principal", Text, nullable=False),
    Column("name", Text, nullable=False, server_default=""),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("knowledge_bases", ARRAY(Text)),  # NULL = all
    Column("created_by", Text, nullable=False),
    Column("replaced_by", Text),  # the key a rotation made of it
    _now("created_at"),
    _at("expires_at"),
    _at("revoked_at"),
    _at("last_used_at"),
    Index("ix_api_keys_principal", "principal"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _now("available_at"),
    _at("lease_until"),
    Column("code", Text),  # why the last attempt failed
    _now("created_at"),
    _at("finished_at"),
    CheckConstraint("status IN ('pending','delivered','failed')", name="status"),
    Index("ix_webhook_deliveries_due", "available_at", postgresql_where=text("status = 'pending'")),
)
