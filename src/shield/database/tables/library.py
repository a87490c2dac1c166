"""Knowledge bases, their documents, and the collections of their vectors."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
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

from shield.database.tables.base import at, json, metadata, now

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
    now("created_at"),
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
    json("metadata"),
    Column("deleting", Boolean, nullable=False, server_default=text("false")),
    at("fetched_at"),
    now("created_at"),
    now("updated_at"),
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
    json("metadata"),
    json("flags", "[]"),  # suspected prompt injections and the like
    at("fetched_at"),
    now("created_at"),
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
    json("flags", "[]"),
)
Index("ix_chunks_embed_hash", chunks.c.embed_hash)

embeddings = Table(
    "embeddings",
    metadata,
    Column("model", Text, primary_key=True),
    Column("text_hash", Text, primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # little-endian float32
    now("created_at"),
)

stale_points = Table(
    "stale_points",
    metadata,
    Column("document_id", Uuid, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("knowledge_base_id", Uuid, nullable=False),
    now("since"),
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
    json("report"),  # the comparison on golden queries: numbers, never text
    now("created_at"),
    at("flipped_at"),  # when it became live, or was retired
    at("keep_until"),  # of a retired one: written until then, so that a rollback finds it complete
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

deletion_proofs = Table(
    "deletion_proofs",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("document_id", Uuid, primary_key=True),
    Column("sentences_checked", Integer, nullable=False),
    Column("sentences_shared", Integer, nullable=False),
    Column("hits", Integer, nullable=False),
    json("stores"),
    Column("seconds", Float, nullable=False),
    # Where the document's revisions go on should its source come back: a stale worker's points must stay dead.
    Column("next_revision", BigInteger, nullable=False, server_default=text("1")),
    now("at"),
    Index("ix_deletion_proofs_document_id", "document_id"),
)
