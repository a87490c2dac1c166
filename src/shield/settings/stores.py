"""Where Shield keeps what it knows."""

from __future__ import annotations

from typing import Literal

from pydantic import ByteSize, Field, SecretStr

from shield.settings.base import Duration, Group, MiB, seconds


class PostgresSettings(Group):
    dsn: SecretStr | None = None
    """PostgreSQL (15 or later, with pgvector) for server mode; embedded mode runs its own."""
    pool_size: int = Field(10, ge=1, le=200)
    """Connections a process keeps."""
    connect_timeout: Duration = seconds(5)
    """Longest wait for a connection."""
    statement_timeout: Duration = seconds(30)
    """Longest single statement."""
    dead_after: Duration = seconds(30)
    """Over TCP, a connection without a sign of life for this long is given up, here and by the server."""
    schema_wait: Duration = seconds(60)
    """How long a process of a fleet waits for the schema to be upgraded, and an upgrade for its turn."""
    lock_timeout: Duration = seconds(5)
    """Longest wait of a migration for a table, during which everybody else waits behind it; then it lets go and tries again."""


class RedisSettings(Group):
    url: SecretStr | None = None
    """Redis or Valkey for server mode: hints and events only, it may be lost at any time."""
    timeout: Duration = seconds(2)
    """Longest wait for an answer; a blocking read lasts half of it."""


class QdrantSettings(Group):
    url: str | None = None
    """Qdrant server for server mode; embedded mode uses Qdrant Edge in the data directory."""
    api_key: SecretStr | None = None
    """Qdrant's API key."""
    timeout: Duration = seconds(10)
    """Longest single call."""
    replicas: int = Field(1, ge=1, le=16)
    """Copies of each collection on a Qdrant cluster; with more than one, writes and reads ask a majority."""
    on_disk: bool = True
    """Keep the vectors of new collections in files that the kernel caches, instead of all in memory."""
    quantization: Literal["int8", "none"] = "int8"
    """How new collections are searched: `int8` = first over bytes kept in memory, then exactly over the candidates."""
    max_field_indexes: int = Field(32, ge=0, le=256)
    """Metadata fields a collection is indexed by, each when a filter first uses it; later ones are filtered without an index."""


class BackupSettings(Group):
    timeout: Duration = seconds(120)
    """Longest single request to the object store, and longest silence of the database while it is read."""
    chunk: ByteSize = ByteSize(32 * MiB)
    """Size of a part of an object; an object has at most 10 000 of them."""
