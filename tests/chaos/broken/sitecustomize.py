"""The fence broken on purpose, for `python -m tests.chaos --sabotage`: a run that has lost its job neither hears of it nor is refused.

Python imports this module by itself in each process of that fleet; the product has no switch for it.
"""

import os

if os.environ.get("SHIELD_MODE") == "server":
    import asyncio
    from typing import Any
    from uuid import UUID

    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncConnection

    from shield.database import fence

    async def everybody_may(connection: AsyncConnection, job_id: UUID, fence: int) -> None:
        """Ask nothing."""

    fence.require_fence = everybody_may

    from shield.jobs import claims
    from shield.worker.attempt import Attempt

    for name in ("_LOCK_HELD", "_BEAT", "_PROGRESS", "_OUTCOME"):
        statement = str(getattr(claims, name))
        setattr(claims, name, text(statement.replace("fence = :fence", ":fence > 0")))

    async def blind(self: Attempt, work: asyncio.Task[Any]) -> None:
        """Renew nothing, stop nothing."""
        await asyncio.wait([work])

    Attempt._keep = blind  # type: ignore[method-assign]
