"""The schema's version, secrets, keys, and what was done by whom."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, LargeBinary, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

from shield.database.tables.base import at, json, metadata, now

schema_version = Table(
    "schema_version",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("version", Text, nullable=False),
    # A server starts if its own version is at least this; a release only expands, so a rollback is never refused.
    Column("min_app_version", Text, nullable=False),
    CheckConstraint("singleton", name="one_row"),
)

cursors_secret = Table(
    "cursors_secret",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("secret", LargeBinary, nullable=False),  # signs the opaque cursors; random, made by the migration
    CheckConstraint("singleton", name="one_row"),
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
    now("created_at"),
    at("expires_at"),
    at("revoked_at"),
    at("last_used_at"),
    Index("ix_api_keys_principal", "principal"),
)

audit_records = Table(
    "audit_records",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    now("at"),
    Column("principal", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    json("details"),
)
