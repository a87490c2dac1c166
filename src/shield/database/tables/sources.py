"""What was fetched or sent, until it is a document."""

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
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from shield.database.tables.base import at, metadata, now

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
    now("created_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index("ix_uploads_expires", "expires_at"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload_id", Uuid, ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
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
    at("fetched_at"),
    CheckConstraint("state IN ('queued','fetched','done','skipped','failed')", name="state"),
    UniqueConstraint("job_id", "url"),
    Index("ix_crawl_pages_final_url", "job_id", "final_url"),
    Index("ix_crawl_pages_text_hash", "job_id", "text_hash", postgresql_where=text("text_hash IS NOT NULL")),
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
    now("fetched_at"),
    Index("ix_web_pages_document_id", "document_id"),
    Index("ix_web_pages_start", "knowledge_base_id", "start"),
)
