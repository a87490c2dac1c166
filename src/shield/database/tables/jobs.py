"""Jobs, their outcomes and their workers."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from shield.database.tables.base import at, count, json, metadata, now

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
    json("spec"),
    Column("payload", LargeBinary),  # inline content; erased at the end
    count("payload_bytes"),
    Column("idempotency_key", Text),
    Column("request_hash", Text, nullable=False),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("worker", Text),
    at("lease_until"),
    Column("parked", Boolean, nullable=False, server_default=text("false")),  # waits for its graph steps, holds no slot
    now("available_at"),
    at("published_at"),
    Column("turn", BigInteger),  # the relay's count when it was last started; round-robin by principal reads it
    count("errors"),
    count("crashes"),
    Column("max_errors", Integer, nullable=False, server_default=text("3")),
    Column("max_crashes", Integer, nullable=False, server_default=text("3")),
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    at("cancel_requested_at"),
    Column("retry_of", Uuid),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("waiting_for", Text),  # the dependency it was last handed back for
    json("progress"),
    Column("traceparent", Text),
    Column("budget_tokens", BigInteger),  # most tokens of language models it may spend; NULL = no limit
    count("tokens"),  # spent so far, all attempts and its graph steps together
    now("created_at"),
    at("started_at"),
    at("finished_at"),
    now("updated_at"),
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
    now("at"),
    CheckConstraint("status IN ('stored','unchanged','failed','skipped','deleted')", name="status"),
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

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    now("available_at"),
    at("lease_until"),
    Column("code", Text),  # why the last attempt failed
    now("created_at"),
    at("finished_at"),
    CheckConstraint("status IN ('pending','delivered','failed')", name="status"),
    Index("ix_webhook_deliveries_due", "available_at", postgresql_where=text("status = 'pending'")),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("runner", Text, nullable=False, server_default="fleet"),
    Column("slots", Integer, nullable=False),
    Column("offers", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),  # needs it can meet
    Column("version", Text, nullable=False),
    now("started_at"),
    now("seen_at"),  # renewed with every heartbeat; one not seen for a lease is dead
)
