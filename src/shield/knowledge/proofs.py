"""The proofs of a deletion job, as its owner reads them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import deletion_proofs as proofs

_SHOWN = 20  # documents whose findings are listed one by one


async def proof_of_job(engine: AsyncEngine, job_id: UUID) -> dict[str, Any] | None:
    """What a job's deletions searched for and found, summed up; None if it proved nothing (yet)."""
    columns = (
        proofs.c.document_id,
        proofs.c.sentences_checked,
        proofs.c.sentences_shared,
        proofs.c.hits,
        proofs.c.stores,
        proofs.c.seconds,
    )
    with database_errors():
        async with engine.connect() as connection:
            rows = (await connection.execute(select(*columns).where(proofs.c.job_id == job_id).order_by(proofs.c.at))).all()
    if not rows:
        return None
    return {
        "documents": len(rows),
        "sentences_checked": sum(row.sentences_checked for row in rows),
        "sentences_shared": sum(row.sentences_shared for row in rows),
        "hits": sum(row.hits for row in rows),
        "seconds": round(sum(row.seconds for row in rows), 3),
        "stores": [{"document_id": str(row.document_id), **row.stores} for row in rows[:_SHOWN]],
    }
