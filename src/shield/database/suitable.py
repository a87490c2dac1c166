"""What Shield needs of a PostgreSQL server: version 15 or later, UTF-8, and the extension pgvector.

Looked at before anything is changed, so that a server which will not do is refused with a sentence instead of an error half-way.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.errors import DatabaseUnsuitable

OLDEST = 15
"""Oldest major version of PostgreSQL."""

_LOOK = sa.text("""
    SELECT current_setting('server_version_num')::int AS number, current_setting('server_encoding') AS encoding,
           (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS installed,
           EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') AS available,
           coalesce((SELECT bool_or(v.trusted) FROM pg_available_extension_versions v WHERE v.name = 'vector'), false) AS trusted,
           (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
           has_database_privilege(current_database(), 'CREATE') AS owner""")


@dataclass(frozen=True)
class Server:
    """What a PostgreSQL server is."""

    number: int
    """`server_version_num`, for example 160004."""
    encoding: str
    vector: str | None
    """Version of pgvector in this database."""
    may_install: bool = False
    """The extension is there, and this role may create it."""

    @property
    def version(self) -> str:
        """As people write it."""
        return f"{self.number // 10000}.{self.number % 10000}"

    def problem(self) -> str | None:
        """Why it will not do, as a sentence."""
        if self.number // 10000 < OLDEST:
            return f"PostgreSQL {self.version} is too old; {OLDEST} or later is needed."
        if self.encoding != "UTF8":
            return f"The database's encoding is {self.encoding}; create it with UTF8."
        if self.vector is None and not self.may_install:
            return (
                "The extension vector (pgvector) is missing from this database. Install pgvector on the server, and have an administrator "
                "run CREATE EXTENSION vector in this database."
            )
        return None


async def look(connection: AsyncConnection) -> Server:
    """What the server is."""
    row = (await connection.execute(_LOOK)).one()
    may_install = row.available and (row.superuser or (row.trusted and row.owner))
    return Server(number=row.number, encoding=row.encoding, vector=row.installed, may_install=may_install)


async def require_suitable(connection: AsyncConnection) -> None:
    """Go on only where Shield can work.

    Raises:
        DatabaseUnsuitable: it cannot; the message says what is missing.
    """
    if (problem := (await look(connection)).problem()) is not None:
        raise DatabaseUnsuitable(problem)
