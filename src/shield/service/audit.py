"""The audit trail: who asked for what that matters later. Names and ids only, never content.

Written down are deletions, knowledge bases made, and every change of a key; searches and questions only if `auth.audit_queries` is
on, and then with a keyed hash and the length of their text.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import audit_records
from shield.service.parts import Parts


async def record(engine: AsyncEngine, principal: str, action: str, subject: str, details: Mapping[str, str]) -> None:
    """Add a record; durable when this returns."""
    with database_errors():
        async with engine.begin() as connection:
            await record_in(connection, principal, action, subject, details)


async def record_in(connection: AsyncConnection, principal: str, action: str, subject: str, details: Mapping[str, str]) -> None:
    """Add a record in the caller's transaction, so that it stands if and only if the change does."""
    await connection.execute(insert(audit_records).values(principal=principal, action=action, subject=subject, details=dict(details)))


async def record_query(parts: Parts, principal: str, action: str, knowledge_base: str, text: str) -> None:
    """Add a record of a search or question, if that is wanted: a keyed hash tells equal ones, the text is not kept."""
    if parts.settings.auth.audit_queries:
        details = {"hash": parts.cursors.fingerprint(text), "length": str(len(text))}
        await record(parts.engine, principal, action, knowledge_base, details)
