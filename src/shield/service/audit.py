"""The audit trail: who asked for what that cannot be undone. Names and ids only, never content."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import audit_records


async def record(engine: AsyncEngine, principal: str, action: str, subject: str, details: Mapping[str, str]) -> None:
    """Add a record; durable when this returns."""
    with database_errors():
        async with engine.begin() as connection:
            await connection.execute(
                insert(audit_records).values(principal=principal, action=action, subject=subject, details=dict(details))
            )
